"""Two ways to start the process of a service.

Rule: services are forked from one process that loaded the libraries once, or, where that does not work, started one by
one. Whoever uses them sees no difference: a process id, signals, and an exit status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deploy.local.child import Child, open_log, spawn
from deploy.local.postgres import Unready

CAN_FORK = sys.platform.startswith("linux")
PRELOAD_SECONDS = 60.0
START_SECONDS = 10.0


class RunningProcess(Protocol):
    """One process of a service, however it was started."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal unless it ended."""

    async def wait(self) -> int:
        """Its exit status, negative for a signal."""


class Starter(Protocol):
    """A way to start processes."""

    @property
    def alive(self) -> bool:
        """Whether it still can."""

    async def start(self, name: str, module: str, environ: Mapping[str, str], log: Path) -> RunningProcess:
        """Starts `python -m module` with this environment."""

    async def stop(self) -> None:
        """Ends what the starter itself needs."""


@dataclass
class SpawnStarter:
    """Starts each service as a program of its own."""

    @property
    def alive(self) -> bool:
        """Always: it has no process of its own."""
        return True

    async def start(self, name: str, module: str, environ: Mapping[str, str], log: Path) -> RunningProcess:
        """Starts an interpreter."""
        return await spawn(name, [sys.executable, "-m", module], log=log, environment=environ)

    async def stop(self) -> None:
        """Nothing to end."""


@dataclass
class Fork:
    """A process forked for us: the fork server tells when it ends."""

    pid: int
    ended: asyncio.Future[int]
    server: ForkStarter

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal through its parent, which knows whether it still lives."""
        if not self.ended.done():
            self.server.order(order="signal", pid=self.pid, number=int(number))

    async def wait(self) -> int:
        """Its exit status."""
        return await asyncio.shield(self.ended)


@dataclass
class ForkStarter:
    """Starts services as forks of one process that loaded the libraries."""

    child: Child
    ready: asyncio.Future[bool]
    _forks: dict[int, Fork] = field(default_factory=dict)
    _asked: dict[str, asyncio.Future[Fork]] = field(default_factory=dict)
    _listener: asyncio.Task[None] | None = None

    @classmethod
    async def launch(cls, log: Path) -> ForkStarter:
        """Begins to load; `ready` tells when, and whether it works here."""
        command = [sys.executable, "-m", "deploy.local.forkserver"]
        child = await spawn("forkserver", command, log=log, piped=True)
        forker = cls(child, asyncio.get_running_loop().create_future())
        forker._listener = asyncio.create_task(forker._listen())
        return forker

    @property
    def alive(self) -> bool:
        """Whether the fork server runs."""
        return self.child.running

    async def start(self, name: str, module: str, environ: Mapping[str, str], log: Path) -> RunningProcess:
        """Forks. Raises Unready when the fork server is gone."""
        if not self.child.running:
            raise Unready(f"the fork server ended; {self.child.log} says:\n{self.child.tail()}")
        answer: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._asked[name] = answer
        with open_log(log):
            self.order(order="start", name=name, module=module, environ=dict(environ), log=str(log))
        try:
            # Not wait_for, which forgets that it was cancelled when the answer comes in the same moment.
            async with asyncio.timeout(START_SECONDS):
                return await answer
        except (asyncio.CancelledError, TimeoutError):
            if answer.done() and not answer.cancelled():
                answer.result().signal(signal.SIGKILL)
            raise

    async def stop(self) -> None:
        """Closes its input, at which it ends; the forks must have ended before."""
        if self.child.process.stdin:
            self.child.process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.child.wait()
        await self.child.stop(grace=1)
        if self._listener:
            await self._listener

    def order(self, **message: Any) -> None:
        """One line to the fork server."""
        if self.child.process.stdin and self.child.running:
            self.child.process.stdin.write((json.dumps(message) + "\n").encode())

    async def _listen(self) -> None:
        assert self.child.process.stdout
        while line := await self.child.process.stdout.readline():
            self._hear(json.loads(line))
        await self.child.wait()
        if not self.ready.done():
            self.ready.set_result(False)
        for fork in list(self._forks.values()):
            # They died with their parent.
            fork.ended.set_result(-int(signal.SIGKILL))
        for answer in self._asked.values():
            answer.set_exception(Unready(f"the fork server ended; {self.child.log} says:\n{self.child.tail()}"))
        self._forks.clear()
        self._asked.clear()

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["event"] == "ready":
            self.ready.set_result(True)
        elif message["event"] == "started":
            fork = Fork(message["pid"], asyncio.get_running_loop().create_future(), self)
            self._forks[fork.pid] = fork
            answer = self._asked.pop(message["name"], None)
            if answer and not answer.done():
                answer.set_result(fork)
            else:
                # Whoever asked for it has gone, or waited too long.
                fork.signal(signal.SIGKILL)
        elif message["event"] == "ended":
            self._forks.pop(message["pid"]).ended.set_result(message["status"])


async def starter(log: Path, environ: Mapping[str, str] = os.environ) -> Starter:
    """The fork server where it works, else plain processes. `PRUNELLA_FORK=0` asks for plain ones."""
    if not CAN_FORK or environ.get("PRUNELLA_FORK") == "0":
        return SpawnStarter()
    return await ForkStarter.launch(log)


async def usable_starter(candidate: Starter) -> Starter:
    """Waits until a fork server is ready; plain processes when it cannot be."""
    if isinstance(candidate, ForkStarter):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PRELOAD_SECONDS):
                if await asyncio.shield(candidate.ready):
                    return candidate
        await candidate.stop()
        return SpawnStarter()
    return candidate
