"""What people do to incidents and plugins from a terminal, and how a line that cannot be done ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.names import new_id
from prunella.v1 import ops_pb2
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from tests.service.cli_terminal import ROOT, Terminal, cli_environment
from tests.service.test_cli_commands import break_a_plugin

# Whoever runs the tests in the background of a shell hands down that interrupts are ignored.
HEARING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("cli.main", run_name="__main__")
"""


@pytest.fixture(scope="module")
async def terminal(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"})
    try:
        await plane.start()
        told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in plane.addresses.items()}
        made = Terminal({**cli_environment(tmp_path_factory.mktemp("state")), **told, "PRUNELLA_KEY": plane.key})
        made.environ["PRUNELLA_OPERATOR"] = "ann"
        made.plugin = await break_a_plugin(plane, "shop-7")
        made.incident = (await plane.wait_for_fact("incident_opened", 30)).incident

        async def placed() -> bool:
            request = ops_pb2.ListTimelineRequest(incident=made.incident)
            return bool((await OpsServiceStub(plane.channel("ops")).ListTimeline(request, timeout=5)).entries)

        await until(placed)
        yield made
    finally:
        await plane.stop()
        await backing.discard()


async def test_an_incident_is_given_to_people_and_talked_about(terminal: Terminal) -> None:
    short = terminal.incident[-8:]
    given = await terminal("incidents", "assign", short, "me", "-m", "I am on call")
    assert (given.code, given.out.split(" takes")[0]) == (0, "ann"), given.err
    assert "ben takes care" in (await terminal("incidents", "assign", short, "ben", "-m", "shift is over")).out
    assert "nobody takes care" in (await terminal("incidents", "assign", short, "nobody", "-m", "solved")).out
    said = await terminal("incidents", "comment", short, "it was the proxy")
    assert (said.code, "comment 1" in said.out) == (0, True)

    async def told() -> bool:
        return "it was the proxy" in (await terminal("incidents", "show", short)).out

    await until(told, 15, what="the story tells the comment")


async def test_a_remedy_by_hand_begins_or_says_why_not(terminal: Terminal) -> None:
    made = await terminal("attempts", "create", "restart", "-p", "shop-7", "-m", "it hangs")
    assert (made.code, made.out.startswith("attempt ")) == (0, True), made.err
    unknown = await terminal("attempts", "create", "patch", "9.9.9", "-p", "shop-7", "-m", "newest")
    assert (unknown.code, "there is no release 9.9.9" in unknown.err) == (1, True)
    wrong = await terminal("attempts", "create", "dance", "-p", "shop-7", "-m", "why not")
    assert (wrong.code, "restart" in wrong.err) == (2, True)
    nowhere = await terminal("attempts", "create", "restart", "-m", "it hangs")
    assert (nowhere.code, "name a plugin or an incident" in nowhere.err) == (1, True)


async def test_incidents_are_handed_over_and_closed_with_a_reason(terminal: Terminal) -> None:
    short = terminal.incident[-8:]
    assert (await terminal("incidents", "close", short)).code == 2, "without a reason nothing is done"
    assert "is escalated" in (await terminal("incidents", "escalate", short, "-m", "look, please")).out
    assert "is closed" in (await terminal("incidents", "close", short, "-m", "looked")).out
    assert (await terminal("incidents", "assign", new_id(), "me", "-m", "what")).code == 1


async def offered(terminal: Terminal, line: str, **environ: str) -> list[str]:
    """What bash shows for Tab at the end of a line."""
    words = line.split(" ")
    asked = {"_PRUNELLA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("prunella")),
        env={**terminal.environ, **asked, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert not complaint
    return said.decode().split()


async def test_tab_offers_what_is_really_there(terminal: Terminal) -> None:
    assert await offered(terminal, "prunella plugins show sh") == ["shop-7"]
    short = terminal.incident[-8:]
    assert await offered(terminal, "prunella incidents show ") == [short]
    assert await offered(terminal, f"prunella incidents show {short[:3]}") == [short]
    assert await offered(terminal, "prunella incidents show nothing") == []
    assert await offered(terminal, f"prunella timeline --incident {terminal.incident[:9]}") == [terminal.incident]
    assert await offered(terminal, "prunella timeline --fact attempt_app") == ["attempt_applied"]


async def test_tab_offers_nothing_and_says_nothing_without_a_plane(terminal: Terminal) -> None:
    nowhere = {f"PRUNELLA_{name.upper()}_ADDRESS": "127.0.0.1:1" for name in ("ingest", "ops")}
    assert await offered(terminal, "prunella plugins show ", **nowhere) == []


async def test_a_list_is_watched_in_place_until_somebody_stops_it(terminal: Terminal) -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HEARING, "incidents", "--watch"), cwd=ROOT, env=terminal.environ,
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while seen.count(b"\x1b[H\x1b[2J") < 3:
            seen += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 65536), 30)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 130
    finally:
        if process.returncode is None:
            process.kill()
        os.close(ours)
    assert terminal.incident[-8:].encode() in seen.split(b"\x1b[2J")[1]


async def test_the_token_is_a_header_for_curl(terminal: Terminal) -> None:
    said = (await terminal("token")).out.strip()
    assert said.startswith("authorization: Service operator:")
