"""MCP servers as the worker keeps them: programs and addresses that fail, hang, crash and say too much."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.ports import free_ports
from deploy.local.testing import until
from libs.common.clock import SystemClock
from services.queue.worker.config import parse
from services.queue.worker.tool_result import TaskFailed
from services.queue.worker.tool_servers import ToolServers

SCRIPT = Path(__file__).with_name("worker_tool_server.py")
TOOLS = """
[server.tools]
level = "read"
mend = "write"
fails = "read"
hangs = { access = "read", deadline_seconds = 0.4 }
huge = "read"
crashes = "read"
absent = "read"
"""


def stdio(notes: Path, name: str = "shaky", command: str = "python", script: Path = SCRIPT) -> str:
    return f"""
[[server]]
name = "{name}"
transport = "stdio"
command = "{command}"
args = ["{script}"]
env = {{ NOTES = "{notes}" }}
start_seconds = 20
{TOOLS}
"""


def http(port: int) -> str:
    return f'[[server]]\nname = "shaky"\ntransport = "http"\nurl = "http://127.0.0.1:{port}/mcp"\n{TOOLS}'


@contextlib.asynccontextmanager
async def servers(text: str) -> AsyncIterator[ToolServers]:
    made = ToolServers(parse(text, "worker.toml", {}), SystemClock())
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def at_an_address(notes: Path, *words: str, port: int = 0) -> AsyncIterator[int]:
    port = port or free_ports(1)[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), "http", str(port), *words, env=os.environ | {"NOTES": str(notes)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens, 60)
        yield port
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def reached(way: str, tmp_path: Path) -> AsyncIterator[ToolServers]:
    notes = tmp_path / "notes"
    if way == "stdio":
        async with servers(stdio(notes)) as made:
            yield made
        return
    async with at_an_address(notes, way) as port, servers(http(port)) as made:
        yield made


async def failure(made: ToolServers, tool: str, **arguments: object) -> str:
    with pytest.raises(TaskFailed) as found:
        await made.call(tool, dict(arguments))
    return found.value.reason


WAYS = pytest.mark.parametrize("way", ["stdio", "json", "events"])


@WAYS
async def test_only_marked_tools_that_are_there_are_promised_and_answer(way: str, tmp_path: Path) -> None:
    async with reached(way, tmp_path) as made:
        assert made.tools() == [f"shaky.{n}" for n in ("crashes", "fails", "hangs", "huge", "level", "mend")]
        answer = await made.call("shaky.level", {"plugin": "p-1"})
        assert (answer.structure, answer.is_error) == ({"level": 0.0, "label": "p-1"}, False)
        answer = await made.call("shaky.fails", {})
        assert answer.is_error
        assert "the part is missing" in answer.text
        assert await failure(made, "shaky.unmarked") == "TOOL_UNKNOWN"
        assert await failure(made, "shaky.absent") == "TOOL_UNAVAILABLE"
        assert await failure(made, "nowhere.level") == "TOOL_UNKNOWN"


@WAYS
async def test_a_tool_that_hangs_meets_its_deadline_and_the_others_go_on(way: str, tmp_path: Path) -> None:
    async with reached(way, tmp_path) as made:
        began = time.monotonic()
        assert await failure(made, "shaky.hangs") == "TOOL_TIMEOUT"
        assert time.monotonic() - began < 30
        assert (await made.call("shaky.level", {})).structure["level"] == 0


async def test_a_tool_that_keeps_hanging_is_not_promised_for_a_while(tmp_path: Path) -> None:
    async with reached("stdio", tmp_path) as made:
        reasons = [await failure(made, "shaky.hangs") for _ in range(4)]
        assert reasons == ["TOOL_TIMEOUT"] * 3 + ["TOOL_UNAVAILABLE"]
        assert "shaky.hangs" not in made.tools()
        assert "shaky.level" in made.tools()


@WAYS
async def test_fifty_megabytes_are_refused_without_being_held(way: str, tmp_path: Path) -> None:
    async with reached(way, tmp_path) as made:
        await made.call("shaky.level", {})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await failure(made, "shaky.huge") in {"ANSWER_TOO_LARGE", "TOOL_FAILED"}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 * 1024
        answer = await made.call("shaky.level", {})
        assert not answer.is_error


async def test_a_program_that_crashes_is_started_again(tmp_path: Path) -> None:
    async with reached("stdio", tmp_path) as made:
        assert await failure(made, "shaky.crashes") in {"TOOL_FAILED", "TOOL_UNAVAILABLE"}
        await until(made.tools, 20)
        assert (await made.call("shaky.level", {})).structure["level"] == 0
        assert (tmp_path / "notes").read_text().count("pid") == 2


async def test_an_address_that_went_away_is_found_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with at_an_address(notes, "json") as port:
        keeping = servers(http(port))
        made = await keeping.__aenter__()
        assert made.tools()
    assert await failure(made, "shaky.level") in {"TOOL_FAILED", "TOOL_UNAVAILABLE", "TOOL_TIMEOUT"}
    await until(lambda: not made.tools(), 20)
    async with at_an_address(notes, "json", port=port):
        await until(made.tools, 30)
        assert not (await made.call("shaky.level", {})).is_error
        await made.stop()


@pytest.mark.parametrize(
    ("command", "said"),
    [("no-such-program-here", "No such file"), ("false", "status 1"), ("cat", "no answer within")],
    ids=["missing", "ends", "silent"],
)
async def test_a_server_that_cannot_start_is_told_and_holds_up_nobody(command: str, said: str, tmp_path: Path) -> None:
    broken = stdio(tmp_path / "other", "broken", command).replace("start_seconds = 20", "start_seconds = 1")
    if command == "cat":
        broken = broken.replace(f'args = ["{SCRIPT}"]', 'args = ["-"]').replace("cat", "sleep").replace('"-"', '"60"')
    async with servers(stdio(tmp_path / "notes") + broken) as made:
        assert "shaky.level" in made.tools()
        assert not [tool for tool in made.tools() if tool.startswith("broken")]
        await until(
            lambda: said in made.servers["broken"].unavailable_reason,
            10,
            what=made.servers["broken"].unavailable_reason,
        )
        assert await failure(made, "broken.level") == "TOOL_UNAVAILABLE"


async def test_no_program_outlives_its_connection(tmp_path: Path) -> None:
    async with reached("stdio", tmp_path) as made:
        program = made.servers["shaky"].program
        assert program is not None
        pid = program.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_program_that_will_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn.sh"
    stubborn.write_text(f"trap '' TERM\nsleep 300 &\necho $$ $! > {tmp_path / 'pids'}\nwhile true; do wait; done\n")
    text = stdio(tmp_path / "notes", command="sh", script=stubborn).replace("start_seconds = 20", "start_seconds = 1")
    async with servers(text) as made:
        assert made.tools() == []
        pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert [pid for pid in pids if alive(pid)] == []


async def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    starter = tmp_path / "starter.sh"
    starter.write_text(f"sleep 300 &\necho $! > {tmp_path / 'pids'}\nexec {sys.executable} {SCRIPT}\n")
    async with servers(stdio(tmp_path / "notes", command="sh", script=starter)) as made:
        assert made.tools()
        pid = int((tmp_path / "pids").read_text())
        assert alive(pid)
        await failure(made, "shaky.crashes")
        await until(lambda: not alive(pid), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
