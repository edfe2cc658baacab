"""The command line against a living plane: what it prints, what it accepts, how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.clock import SystemClock
from libs.common.names import new_id
from prunella.v1 import agent_pb2, ingest_pb2
from prunella.v1.agent_pb2_grpc import AgentGatewayStub
from prunella.v1.ingest_pb2_grpc import IngestServiceStub
from tests.service.cli_terminal import Terminal, cli_environment


async def break_a_plugin(plane: Plane, label: str) -> str:
    """Enrols a plugin and has it say, as a plain client would, that 60 % of its webhooks fail; its id."""
    ingest: Any = IngestServiceStub(plane.channel("ingest"))
    token = ingest_pb2.CreateEnrollmentTokenRequest(
        request_id=new_id(), merchant="acme", package="checkout", label=label
    )
    token.lifetime.FromSeconds(60)
    given = await ingest.CreateEnrollmentToken(token, timeout=5)
    async with grpc.aio.insecure_channel(plane.addresses["ingest"]) as channel:
        gateway: Any = AgentGatewayStub(channel)
        joining = agent_pb2.EnrollRequest(
            token=given.token, enrollment_key=new_id(), package="checkout", release="1.2.0", merchant="acme"
        )
        joined = await gateway.Enroll(joining, timeout=5)
        metadata = (("authorization", f"Plugin {joined.plugin}:{joined.secret}"),)
        boot = new_id()
        for sequence in (1, 2, 3):  # a bare rate is evidence at the third time
            beat = agent_pb2.Beat(boot_id=boot, sequence=sequence, release="1.2.0", health=agent_pb2.HEALTH_HEALTHY)
            beat.webhook_fail_rate = 0.6
            beat.time.FromDatetime(SystemClock().now())
            await gateway.Heartbeat(agent_pb2.HeartbeatRequest(beat=beat), metadata=metadata, timeout=5)
    return str(joined.plugin)


@pytest.fixture(scope="module")
async def terminal(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"})
    try:
        await plane.start()
        told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in plane.addresses.items()}
        owner = {"PRUNELLA_KEY": plane.key, "DATABASE_URL": backing.url(), "NATS_URL": backing.nats_url}
        made = Terminal({**cli_environment(tmp_path_factory.mktemp("state")), **told, **owner})
        made.plugin = await break_a_plugin(plane, "shop-7")
        made.incident = (await plane.wait_for_fact("incident_opened", 30)).incident
        await plane.wait_for_fact("decision_made", 30)
        await until(lambda: made_of(plane), 30, what="an attempt")
        yield made
    finally:
        await plane.stop()
        await backing.discard()


async def made_of(plane: Plane) -> list[Any]:
    return await plane.facts("attempt_created", "attempt_refused")


@pytest.fixture
def nowhere(tmp_path: Path) -> Terminal:
    return Terminal(cli_environment(tmp_path))


@pytest.mark.parametrize("group", ["plugins", "incidents", "decisions", "attempts", "releases", "timeline"])
async def test_every_list_is_one_json_array_of_proto_objects(terminal: Terminal, group: str) -> None:
    answer = await terminal(group, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert isinstance(answer.json, list)
    if group not in {"releases", "timeline"}:
        assert answer.json[0]["name"].startswith(f"{group}/")
    assert all(name == name.lower() for entry in answer.json for name in entry)


@pytest.mark.parametrize("group", ["plugins", "incidents", "decisions", "attempts"])
async def test_a_table_names_the_plugin_by_its_label(terminal: Terminal, group: str) -> None:
    answer = await terminal(group)
    assert answer.code == 0
    assert "shop-7" in answer.out


async def test_a_table_fits_a_narrow_screen(terminal: Terminal) -> None:
    answer = await terminal("incidents", COLUMNS="60")
    assert max(map(len, answer.out.splitlines())) <= 60
    assert terminal.incident[-8:] in answer.out


async def test_limits_and_filters_narrow_a_list(terminal: Terminal) -> None:
    assert len((await terminal("timeline", "--json", "--limit", "1")).json) == 1
    assert (await terminal("incidents", "--json", "--plugin", "shop-7", "--severity", "medium")).json
    assert not (await terminal("incidents", "--json", "--state", "closed")).json
    assert {entry["fact"] for entry in (await terminal("timeline", "--json", "-f", "incident_opened")).json} == {
        "incident_opened"
    }


async def test_ids_may_be_shortened_and_plugins_go_by_their_label(terminal: Terminal) -> None:
    incident, plugin = terminal.incident, terminal.plugin
    for typed in (incident, incident[-8:], f"incidents/{incident}", f"…{incident[-6:]}"):
        answer = await terminal("incidents", "show", typed, "--json")
        assert answer.json["name"] == f"incidents/{incident}"
    for typed in ("shop-7", plugin, plugin[-8:], "plugins/shop-7"):
        assert (await terminal("plugins", "show", typed, "--json")).json["label"] == "shop-7"


async def test_an_incident_tells_its_story(terminal: Terminal) -> None:
    answer = await terminal("incidents", "show", terminal.incident[-8:])
    assert answer.code == 0
    assert "shop-7 (checkout 1.2.0) broke: webhook_fail_rate, medium" in answer.out
    assert "decided" in answer.out
    assert f"prunella trace {terminal.incident[-8:]}" in answer.out


async def test_a_trace_is_found_by_incident_plugin_and_nothing_at_all(terminal: Terminal) -> None:
    for words in ((terminal.incident[-8:],), ("shop-7",), ()):
        answer = await terminal("trace", *words)
        assert answer.code == 0, answer.err
        assert "react incident_opened" in answer.out
        assert "incomplete: agent took no part" in answer.out
    spans = (await terminal("trace", "shop-7", "--json")).json
    assert {"ingest", "decider"} <= {span["service"] for span in spans["spans"]}
    assert (await terminal("trace", spans["trace_id"])).code == 0


async def test_the_kill_switch_is_engaged_shown_and_released(terminal: Terminal) -> None:
    engaged = await terminal("kill-switch", "engage", "--scope", "plugins/shop-7", "-m", "looking", "--json")
    assert engaged.json["kill_switch"]["scope"] == f"plugins/{terminal.plugin}"
    assert engaged.json["kill_switch"]["engaged"]
    assert "looking" in (await terminal("kill-switch", "status")).out
    assert terminal.plugin in json.dumps((await terminal("status", "--json")).json["kill_switches"])
    released = await terminal("kill-switch", "release", "--scope", "plugins/shop-7", "-m", "fine", "--json")
    assert not released.json["engaged"]


async def test_status_and_doctor_say_that_all_is_well(terminal: Terminal) -> None:
    status = await terminal("status", "--json")
    assert status.code == 0
    assert set(status.json["services"].values()) == {"serving"}
    doctor = await terminal("doctor", "--json")
    wrong = [check for check in doctor.json["checks"] if check["ok"] is False]
    assert not wrong
    assert doctor.code == 0


async def test_a_watch_goes_on_from_the_past_into_the_present(terminal: Terminal) -> None:
    process = await terminal.process("timeline", "--watch", "--json", "-f", "kill_switch_engaged", "-n", "1")
    try:
        assert process.stdout
        await terminal("kill-switch", "engage", "--scope", "merchants/acme", "-m", "first")
        seen: list[str] = []
        while "second" not in seen:
            if len(seen) == 1:
                await terminal("kill-switch", "engage", "--scope", "merchants/other", "-m", "second")
            line = await asyncio.wait_for(process.stdout.readline(), 30)
            entry = json.loads(line)
            if entry["event"]["reason"] in {"first", "second"}:
                seen.append(entry["event"]["reason"])
        assert seen == ["first", "second"]
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("incidents", "show", "ffffffff"), 1, "no incident begins or ends with 'ffffffff'"),
        (("plugins", "show", "nobody"), 1, "nobody"),
        (("releases", "show", "checkout@9.9.9"), 1, "9.9.9"),
        (("trace", "zzzzzzzz"), 1, "is no incident, plugin, error or trace"),
        (("timeline", "-f", "nonsense"), 1, "there is no fact"),
        (("incidents", "--severity", "odd"), 2, "use low, medium, high or critical"),
        (("kill-switch", "engage", "--scope", "everything", "-m", "x"), 2, "use global"),
        (("kill-switch", "engage"), 2, "--reason"),
        (("plugins", "--limit", "-1"), 2, "--limit"),
        (("nonsense",), 2, "No such command"),
    ],
)
async def test_what_is_wrong_is_said_without_a_traceback(
    terminal: Terminal, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = await terminal(*words)
    assert answer.code == code
    assert said in " ".join(answer.err.split())
    assert not answer.out
    assert "Traceback" not in answer.err


async def test_without_a_plane_the_line_to_type_is_said(nowhere: Terminal) -> None:
    for words in (("status",), ("plugins", "--json"), ("timeline", "--watch"), ("trace",)):
        answer = await nowhere(*words)
        assert answer.code == 3
        assert answer.err.strip() == (
            "prunella: no plane is running for this checkout; start one with: make run  (or: prunella up)"
        )
        assert not answer.out
    assert (await nowhere("demo", "break", "shop-7")).code == 3


async def test_a_plane_that_does_not_answer_is_another_thing_than_none(nowhere: Terminal) -> None:
    gone = {"PRUNELLA_INGEST_ADDRESS": "127.0.0.1:1", "PRUNELLA_KEY": "ab" * 32}
    answer = await nowhere("plugins", **gone)
    assert answer.code == 3
    assert "127.0.0.1:1" in answer.err
    assert "prunella doctor" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert "PRUNELLA_OPS_ADDRESS" in (await nowhere("timeline", **gone)).err
    assert "hexadecimal" in (await nowhere("plugins", **{**gone, "PRUNELLA_KEY": "not hex"})).err


async def test_a_wrong_key_is_said(terminal: Terminal) -> None:
    answer = await terminal("plugins", PRUNELLA_KEY="ab" * 32)
    assert answer.code == 1
    assert "credential" in answer.err


async def test_the_doctor_examines_a_checkout_without_a_plane(nowhere: Terminal) -> None:
    answer = await nowhere("doctor")
    assert answer.code == 1
    assert "✗ plane" in answer.out
    assert "make run" in answer.out


async def test_help_names_every_command_and_needs_nothing(nowhere: Terminal) -> None:
    process = await nowhere.process("--help")
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")
    for command in ("up", "demo", "status", "doctor", "plugins", "incidents", "decisions", "attempts", "kill-switch"):
        assert command in out.decode()


async def test_a_token_lets_a_plugin_join_and_a_word_lets_it_leave(terminal: Terminal) -> None:
    words = ("--package", "checkout", "--merchant", "acme", "--label", "shop-9")
    told = await terminal("plugins", "token", *words)
    assert told.code == 0
    assert "prunella_agent" in told.err
    async with grpc.aio.insecure_channel(terminal.environ["PRUNELLA_INGEST_ADDRESS"]) as channel:
        gateway: Any = AgentGatewayStub(channel)
        joining = agent_pb2.EnrollRequest(
            token=told.out.strip(), enrollment_key=new_id(), package="checkout", release="1.2.3", merchant="acme"
        )
        joined = await gateway.Enroll(joining, timeout=5)
    shown = await terminal("plugins", "show", "shop-9", "--json")
    assert shown.json["name"] == f"plugins/{joined.plugin}"
    left = await terminal("plugins", "retire", "shop-9", "-m", "shop closed")
    assert (left.code, left.out.strip()) == (0, "shop-9 is retired")


async def test_an_incident_is_handed_to_a_person_and_closed(terminal: Terminal) -> None:
    handed = await terminal("incidents", "escalate", terminal.incident[-8:], "-m", "I look at it")
    assert handed.out.strip() == f"incident {terminal.incident[-8:]} is escalated"
    closed = await terminal("incidents", "close", terminal.incident[-8:], "-m", "mended by hand")
    assert closed.out.strip() == f"incident {terminal.incident[-8:]} is closed"
