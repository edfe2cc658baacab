"""Watches what must run: whoever ends without being told to is started again.

Rule: at once at first, then with growing pauses, for ever; each time is said with the reason and the place of the log.
Somebody who is held stays down until released: that is how faults are made on purpose. Nobody is started again once
stopping has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.binaries import NotInstalled
from deploy.local.child import Child
from deploy.local.nats import Nats
from deploy.local.postgres import Postgres, Unready
from deploy.local.processes import RunningProcess, Starter
from libs.common.cancellation import cancel_and_wait

FIRST_PAUSE, LONGEST_PAUSE, CALM_SECONDS = 0.1, 5.0, 30.0
GRACE_SECONDS = 10.0
KILL_SECONDS = 5.0
Say = Callable[[str], None]


def describe_status(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


@dataclass
class Backoff:
    """How long to wait before the next start: doubling, and short again after a calm while."""

    last: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def next(self) -> float:
        """Seconds to wait now."""
        calm = time.monotonic() - self.began > CALM_SECONDS
        self.last = FIRST_PAUSE if calm or not self.last else min(LONGEST_PAUSE, self.last * 2)
        return self.last


@dataclass
class ServiceWatch:
    """One service: its process, and the task that keeps it running."""

    name: str
    module: str
    environ: Mapping[str, str]
    log: Path
    starter: Callable[[], Awaitable[Starter]]
    say: Say
    changed: Callable[[], None] = lambda: None
    running: RunningProcess | None = None
    failures: int = 0
    _free: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 while it is down."""
        return self.running.pid if self.running else 0

    def begin(self) -> None:
        """Starts watching, and the service with it."""
        self._free.set()
        self._task = asyncio.create_task(self._keep(), name=f"watch {self.name}")

    async def hold(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the service with a signal and keeps it down."""
        self._free.clear()
        await self._end(number, GRACE_SECONDS)

    def release(self) -> None:
        """Lets a held service run again."""
        self._free.set()

    async def kill(self) -> None:
        """Kills the service; it will be started again."""
        if self.running:
            self.running.signal(signal.SIGKILL)
            await self.running.wait()

    async def stop(self) -> None:
        """Ends the service in order, and the watch with it."""
        self._stop.set()
        await self._end(signal.SIGTERM, GRACE_SECONDS)
        if self._task:
            await cancel_and_wait([self._task])

    async def _end(self, number: signal.Signals, grace: float) -> None:
        running = self.running
        if not running:
            return
        running.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await running.wait()
            return
        self.say(f"{self.name} did not end within {grace:g} s and is killed; its log: {self.log}")
        running.signal(signal.SIGKILL)
        async with asyncio.timeout(KILL_SECONDS):
            await running.wait()

    async def _keep(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            await self._free.wait()
            backoff.began = time.monotonic()
            reason = await self._once()
            if self._stop.is_set() or not self._free.is_set():
                continue
            self.failures += 1
            pause = backoff.next()
            self.say(f"{self.name} ended ({reason}), starting it again in {pause:g} s; its log: {self.log}")
            await asyncio.sleep(pause)

    async def _once(self) -> str:
        try:
            starter = await self.starter()
            self.running = await starter.start(self.name, self.module, self.environ, self.log)
        except (Unready, OSError, TimeoutError) as problem:
            return str(problem)
        self.changed()
        if self._stop.is_set() or not self._free.is_set():
            # It was held or stopped while it started.
            self.running.signal(signal.SIGKILL)
        try:
            return describe_status(await self.running.wait())
        finally:
            self.running = None


@dataclass
class ServerWatch:
    """PostgreSQL or NATS: already started, kept running."""

    name: str
    server: Postgres | Nats
    say: Say
    changed: Callable[[], None] = lambda: None
    _task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts watching."""
        self._task = asyncio.create_task(self._keep(), name=f"watch {self.name}")

    async def stop(self) -> None:
        """Ends the watch, then the server."""
        if self._task:
            await cancel_and_wait([self._task])
        await self.server.stop()

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            child: Child | None = self.server.child
            assert child, "watched before it was started"
            status = await child.wait()
            pause = backoff.next()
            self.say(
                f"{self.name} ended ({describe_status(status)}), starting it again in {pause:g} s; its log: {child.log}"
            )
            await asyncio.sleep(pause)
            backoff.began = time.monotonic()
            try:
                await self.server.start()
                self.changed()
            except (Unready, NotInstalled, OSError) as problem:
                self.say(f"{self.name}: {problem}")
