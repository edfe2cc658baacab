"""What a service does because time passed: loops that outlive every failure, and the table of sweeps.

A round that raises is logged, and the loop goes on after a pause that doubles. Sweeps are loops over a table
`name → (seconds, function)`; tests run them by hand, with a time of their choice.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import structlog

from libs.common.cancellation import cancel_and_wait
from libs.common.clock import Clock, SystemClock
from libs.common.errors import Problem
from libs.common.telemetry import counter, histogram

ContextT = TypeVar("ContextT")
ContextT_contra = TypeVar("ContextT_contra", contravariant=True)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0

_log = structlog.get_logger(__name__)
_failures = counter("loop_failures_total", "Rounds of background loops that ended in an exception", ("loop",))
_sweep_seconds = histogram("sweep_seconds", "Time one round of a sweep took", ("sweep",))


class Sweep(Protocol[ContextT_contra]):
    """One duty that comes with time; returns how much it did."""

    def __call__(self, ctx: ContextT_contra, now: datetime, /) -> Awaitable[int]: ...


class Loop:
    """A part that runs `round_` again and again, `every` seconds apart, whatever it raises.

    Pauses are real time: with a ManualClock a test runs rounds itself.
    """

    def __init__(self, name: str, round_: Callable[[], Awaitable[object]], *, every: float) -> None:
        self.name = name
        self._round = round_
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._triggered = asyncio.Event()

    async def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the running round and wait until the loop has ended."""
        if self._task is not None:
            task, self._task = self._task, None
            await cancel_and_wait([task])

    def trigger(self) -> None:
        """Begin the next round at once instead of after the pause."""
        self._triggered.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._triggered.clear()
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 (a loop outlives every failure of a round)
                _failures.labels(self.name).inc()
                _report(self.name, error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._triggered.wait()


class Sweeps(Generic[ContextT]):
    """A part that does every duty of a table at its own interval; with `run_once(name)` one is done by hand."""

    def __init__(
        self,
        service: str,
        ctx: ContextT,
        sweeps: Mapping[str, tuple[float, Sweep[ContextT]]],
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service} sweeps"
        self._service = service
        self._ctx = ctx
        self._sweeps = sweeps
        self._clock = clock or SystemClock()
        self._loops = {name: self._loop(name, seconds) for name, (seconds, _) in sweeps.items()}

    async def start(self) -> None:
        """Begin every duty."""
        for loop in self._loops.values():
            await loop.start()

    async def stop(self) -> None:
        """End every duty."""
        for loop in self._loops.values():
            await loop.stop()

    def trigger(self, name: str) -> None:
        """Do a duty at once instead of at its next time."""
        self._loops[name].trigger()

    async def run_once(self, name: str, now: datetime | None = None) -> int:
        """Do one duty now; returns how much it did."""
        _, sweep = self._sweeps[name]
        began = time.perf_counter()
        try:
            return await sweep(self._ctx, now or self._clock.now())
        finally:
            _sweep_seconds.labels(f"{self._service}.{name}").observe(time.perf_counter() - began)

    def _loop(self, name: str, seconds: float) -> Loop:
        async def do() -> None:
            await self.run_once(name)

        return Loop(f"{self._service}.{name}", do, every=seconds)


def _report(name: str, error: Exception, pause: float) -> None:
    if isinstance(error, Problem):
        _log.warning("a loop could not do its round", loop=name, why=error.message, reason=error.reason, pause=pause)
    else:
        _log.exception("a loop failed and goes on", loop=name, pause=pause, exc_info=error)
