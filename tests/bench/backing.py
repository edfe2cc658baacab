"""What a measurement stands on: a real plane of its own, many plugins at once, child processes for load and peers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from deploy.local.plane import Plane
from deploy.local.state import State, private_folder
from libs.common.names import new_id

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / place) for place in (".", "protos/gen", "libs/agent"))
SERVICES = ("ingest", "decider", "patcher", "queue", "ops")


def secret(plugin: str) -> str:
    """The secret of a seeded plugin; made from its id, so that load processes need no list of them."""
    return hashlib.sha256(f"bench {plugin}".encode()).hexdigest()


@contextlib.asynccontextmanager
async def plane(environment: Mapping[str, str], services: Sequence[str] = SERVICES) -> AsyncIterator[Plane]:
    """A plane on a throw-away folder with durable servers; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="prunella-bench-") as folder:
        state = State(private_folder(Path(folder) / "state"))
        running = await Plane.start(state=state, fresh=True, environment=environment, services=services)
        try:
            yield running
        finally:
            await running.stop()


async def seed(owner_url: str, count: int, *, package: str = "bench") -> list[str]:
    """Enrols `count` plugins by writing their rows; enrolment itself is not what is measured."""
    plugins = [new_id() for _ in range(count)]
    now = time.time()
    connection = await asyncpg.connect(owner_url)
    try:
        digests = [hashlib.sha256(secret(plugin).encode()).digest() for plugin in plugins]
        await connection.execute(
            """INSERT INTO ingest.plugins (id, package, merchant, label, secret, enroll_time)
               SELECT id, $3, 'bench', 'bench-' || id, secret, to_timestamp($4)
               FROM unnest($1::uuid[], $2::bytea[]) AS given(id, secret)""",
            [UUID(plugin) for plugin in plugins], digests, package, now,
        )  # fmt: skip
        await connection.execute(
            """INSERT INTO ingest.plugin_state (id, merchant, last_beat_time, release)
               SELECT id, 'bench', $2, '1.0.0' FROM unnest($1::uuid[]) AS given(id)""",
            [UUID(plugin) for plugin in plugins], now,
        )  # fmt: skip
        await connection.execute("ANALYZE ingest.plugins")
        await connection.execute("ANALYZE ingest.plugin_state")
    finally:
        await connection.close()
    return plugins


async def child(module: str, order: Mapping[str, Any]) -> asyncio.subprocess.Process:
    """A process of this folder that takes its order as one line of JSON on standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps(order).encode() + b"\n")
    await process.stdin.drain()
    return process


async def answer(process: asyncio.subprocess.Process, timeout: float = 180.0) -> dict[str, Any]:
    """The next line of JSON a child prints."""
    assert process.stdout
    line = await asyncio.wait_for(process.stdout.readline(), timeout)
    if not line:
        raise RuntimeError(f"the child process ended with status {await process.wait()} and no answer")
    found: dict[str, Any] = json.loads(line)
    return found


async def run(module: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a child to its end and returns what it measured."""
    process = await child(module, order)
    try:
        return await answer(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def memory(pid: int) -> int:
    """Proportional set size of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
