"""A service's process: settings, readiness, signals, exit status, metrics."""

import asyncio
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("runtime_child.py")
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
while child.stdout.readline().strip() != "checked": pass
print(child.pid, flush=True)
sys.stdin.read()
"""


def environ(folder: Path, **more: str) -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "protos/gen", "libs/agent"))
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": paths,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1/none",
        "NATS_URL": "nats://127.0.0.1:1",
        "PRUNELLA_KEY": "ab" * 32,
        "PRUNELLA_STATE": str(folder),
        "PRUNELLA_LOG": "json",
        **more,
    }


@asynccontextmanager
async def child(folder: Path, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        env=environ(folder, **more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def says(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdout
    async with asyncio.timeout(20):
        while (line := (await process.stdout.readline()).decode().strip()) != word:
            assert line or process.returncode is None, f"it ended without saying {word}"


async def ended(process: asyncio.subprocess.Process, seconds: float = 15) -> tuple[int, str]:
    async with asyncio.timeout(seconds):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    async with child(tmp_path) as process:
        await says(process, "checked")
        process.send_signal(number)
        await says(process, "stopped")
        status, errors = await ended(process)
    assert status == 0, errors


async def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with child(tmp_path, CHILD_HANGS="true") as process:
        await says(process, "checked")
        process.send_signal(signal.SIGINT)
        await says(process, "stopping")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        status, _ = await ended(process)
    assert status == 128 + signal.SIGINT
    assert time.monotonic() - began < 3


async def test_wrong_settings_are_told_before_anything_starts(tmp_path: Path) -> None:
    async with child(tmp_path, PRUNELLA_KEY="short", PRUNELLA_LISTEN="here") as process:
        status, errors = await ended(process)
    assert status == 2
    assert "PRUNELLA_KEY: " in errors
    assert "PRUNELLA_LISTEN: not host:port" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("variable", ["PRUNELLA_LISTEN", "PRUNELLA_HTTP_LISTEN"])
async def test_a_taken_port_is_told_with_its_remedy(tmp_path: Path, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with child(tmp_path, **{variable: address}) as process:
            status, errors = await ended(process)
    assert status == 1
    assert f"cannot listen on {address}" in errors
    assert f"{variable} to another host:port" in errors
    assert "Traceback" not in errors


async def test_every_process_serves_its_metrics_and_its_health(tmp_path: Path) -> None:
    port = free_port()
    async with child(tmp_path, PRUNELLA_HTTP_LISTEN=f"127.0.0.1:{port}") as process:
        await says(process, "checked")
        address = f"http://127.0.0.1:{port}/metrics"
        answer = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=5).read())
        health = address.replace("metrics", "healthz")
        said = await asyncio.to_thread(lambda: urllib.request.urlopen(health, timeout=5).read())  # noqa: S310
        process.terminate()
        status, errors = await ended(process)
    assert b"prunella_rpc_seconds" in answer
    assert said == b"ok"
    assert status == 0, errors


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells of a parent's death on Linux only")
async def test_a_service_ends_with_its_parent_when_told_to(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(CHILD),
        env=environ(tmp_path, PRUNELLA_DIE_WITH_PARENT="1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert parent.stdout
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    # A descriptor for this very process: its number may be given to another one day.
    descriptor = os.pidfd_open(pid)
    try:
        parent.kill()
        await parent.wait()
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), 15)
        finally:
            loop.remove_reader(descriptor)
            if not gone.is_set():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
