"""Services as processes: forked or plain, they are watched, started again, held, and end with whoever started them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.local.child import spawn
from deploy.local.processes import CAN_FORK, ForkStarter, SpawnStarter, Starter, usable_starter
from deploy.local.testing import until
from deploy.local.watch import ServiceWatch

ROOT = Path(__file__).resolve().parents[2]
# A service that tells who it is and what it was given, and then waits.
SERVICE = """\
import os, signal, sys, threading, time
if os.environ.get("COLOUR") == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", os.getpid(), os.environ.get("COLOUR"), os.environ.get("HOME"), threading.active_count(), flush=True)
if os.environ.get("COLOUR") == "broken":
    sys.exit(3)
time.sleep(60)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "a_test_service.py").write_text(SERVICE)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {"PYTHONPATH": paths, "PATH": os.environ["PATH"], "COLOUR": "green"}


@pytest.fixture(params=["forked", "plain"])
async def starter(
    request: pytest.FixtureRequest, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Starter]:
    if request.param == "forked" and not CAN_FORK:
        pytest.skip("services are forked on Linux only")
    monkeypatch.setenv("PYTHONPATH", environ["PYTHONPATH"])
    made: Starter = (
        await usable_starter(await ForkStarter.launch(tmp_path / "forkserver.log"))
        if request.param == "forked"
        else SpawnStarter()
    )
    assert isinstance(made, ForkStarter if request.param == "forked" else SpawnStarter)
    yield made
    await made.stop()


@pytest.fixture
async def watch(starter: Starter, tmp_path: Path, environ: dict[str, str]) -> AsyncIterator[ServiceWatch]:
    said: list[str] = []

    async def ready() -> Starter:
        return starter

    made = ServiceWatch("green", "a_test_service", environ, tmp_path / "green.log", ready, said.append)
    made.begin()
    await until(lambda: made.pid and "started" in made.log.read_text(), what="the service runs")
    yield made
    await made.stop()
    assert made.pid == 0


def starts(watch: ServiceWatch) -> list[list[str]]:
    return [line.split() for line in watch.log.read_text().splitlines() if line.startswith("started")]


async def test_a_service_gets_its_own_environment_and_no_other(watch: ServiceWatch) -> None:
    assert starts(watch) == [["started", str(watch.pid), "green", "None", "1"]]
    assert os.getpgid(watch.pid) == watch.pid, "it leads its own group, so a Ctrl-C here does not reach it"


async def test_a_service_that_was_killed_is_started_again(watch: ServiceWatch) -> None:
    first = watch.pid
    await watch.kill()
    await until(lambda: len(starts(watch)) == 2 and watch.pid not in {0, first}, what="the second start")


async def test_a_held_service_stays_down_until_it_is_released(watch: ServiceWatch) -> None:
    await watch.hold()
    assert watch.pid == 0
    watch.release()
    await until(lambda: len(starts(watch)) == 2, what="the start after the release")


async def test_a_service_that_is_held_while_it_starts_does_not_stay(
    starter: Starter, tmp_path: Path, environ: dict[str, str]
) -> None:
    asked, go, started = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> Starter:
        asked.set()
        await go.wait()
        return starter

    log = tmp_path / "green.log"
    watch = ServiceWatch("green", "a_test_service", environ, log, slow, lambda _line: None, changed=started.set)
    watch.begin()
    try:
        await asked.wait()
        await watch.hold()
        go.set()
        await started.wait()
        await until(lambda: watch.pid == 0, what="it does not stay")
        watch.release()
        await until(lambda: watch.pid and starts(watch), what="the start after the release")
        assert watch.failures == 0, "whoever was held did not fail"
    finally:
        await watch.stop()


async def test_a_broken_service_is_started_ever_more_slowly_and_its_log_is_named(
    starter: Starter, tmp_path: Path, environ: dict[str, str]
) -> None:
    said: list[str] = []

    async def ready() -> Starter:
        return starter

    watch = ServiceWatch(
        "broken", "a_test_service", environ | {"COLOUR": "broken"}, tmp_path / "broken.log", ready, said.append
    )
    watch.begin()
    await until(lambda: len(said) == 3, what="three failures")
    await watch.stop()
    assert [line.partition("again in ")[2].split()[0] for line in said] == ["0.1", "0.2", "0.4"]
    assert all("exit status 3" in line and "broken.log" in line for line in said)


async def test_a_service_that_ignores_the_polite_signal_is_killed(
    starter: Starter, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.watch.GRACE_SECONDS", 0.3)
    said: list[str] = []

    async def ready() -> Starter:
        return starter

    watch = ServiceWatch("deaf", "a_test_service", environ | {"COLOUR": "deaf"}, tmp_path / "d.log", ready, said.append)
    watch.begin()
    await until(lambda: watch.pid and "started" in watch.log.read_text(), what="the service runs")
    await watch.stop()
    assert "did not end within" in said[0]


@pytest.mark.parametrize("first", ["the answer", "the cancellation"])
async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path, first: str) -> None:
    orders: list[dict[str, Any]] = []
    pipe: Any = SimpleNamespace(write=lambda line: orders.append(json.loads(line)))
    child: Any = SimpleNamespace(running=True, process=SimpleNamespace(stdin=pipe))
    forker = ForkStarter(child, asyncio.get_running_loop().create_future())
    starts = asyncio.create_task(forker.start("green", "a_test_service", {}, tmp_path / "green.log"))
    await asyncio.sleep(0)
    hear = {"the answer": lambda: forker._hear({"event": "started", "name": "green", "pid": 7})}
    moves = {**hear, "the cancellation": starts.cancel}
    moves.pop(first)()
    if first == "the cancellation":
        await asyncio.wait([starts])
    moves.popitem()[1]()
    with pytest.raises(asyncio.CancelledError):
        await starts
    assert orders[1:] == [{"order": "signal", "pid": 7, "number": int(signal.SIGKILL)}]


@pytest.mark.skipif(not CAN_FORK, reason="services are forked on Linux only")
async def test_when_the_fork_server_dies_its_services_die_and_we_know(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environ["PYTHONPATH"])
    forker = await usable_starter(await ForkStarter.launch(tmp_path / "forkserver.log"))
    assert isinstance(forker, ForkStarter)
    running = await forker.start("green", "a_test_service", environ, tmp_path / "green.log")
    os.kill(forker.child.pid, signal.SIGKILL)
    assert await asyncio.wait_for(running.wait(), 5) == -signal.SIGKILL
    await until(lambda: not Path(f"/proc/{running.pid}/cmdline").exists(), 5, what="the service ends")
    assert not forker.alive
    await forker.stop()


@pytest.mark.parametrize("watching", ["", "1"], ids=["by the kernel", "by a watcher"])
async def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, watching: str) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from deploy.local.child import spawn\n"
        "async def main():\n"
        "    c = await spawn('nap', ['sleep', '60'], log=pathlib.Path(sys.argv[1]))\n"
        "    print(c.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "nap.log")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PRUNELLA_WATCH_PARENT": watching},
    )
    assert parent.stdout
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    parent.stdout.close()
    await until(lambda: len(sleepers(pid)) == 1, what="the nap begins")
    parent.kill()
    parent.wait()
    await until(lambda: not sleepers(pid), 5, what="the nap ends")


def sleepers(pid: int) -> list[str]:
    """Command lines of a process's session that are a nap."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if session == str(pid) and command.startswith(b"sleep\0"):
            found.append(entry.name)
    return found


async def test_a_log_that_grew_too_long_is_cut_and_can_only_be_read_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.child.LOG_BYTES", 100)
    log = tmp_path / "talk.log"
    for _ in range(2):
        child = await spawn("talk", ["seq", "100"], log=log)
        assert await asyncio.wait_for(child.wait(), 5) == 0
    assert log.read_text().startswith("1\n2\n")
    assert log.read_text().count("\n") == 100
    assert log.with_suffix(".log.1").exists()
    assert log.stat().st_mode & 0o777 == 0o600
