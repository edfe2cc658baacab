"""The life of a process: parts start in order, run until a signal, and stop in reverse.

A part that does not stop in time is left behind and named in the log; nothing depends on a clean stop. The first
SIGTERM or SIGINT stops in order, the second ends the process at once. Loops never die of an exception: it is logged and
the loop goes on after a pause that doubles. Sweeps are loops over a table `name → (seconds, function)`; tests run them by hand.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from libs.common.clock import Clock, SystemClock
from libs.common.errors import Problem
from libs.common.telemetry import Telemetry, counter, histogram

DoorsT = TypeVar("DoorsT")
DoorsT_contra = TypeVar("DoorsT_contra", contravariant=True)

STOP_SECONDS: Final = 8.0
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
DIE_WITH_PARENT: Final = "PRUNELLA_DIE_WITH_PARENT"
_PR_SET_PDEATHSIG: Final = 1

_log = structlog.get_logger(__name__)
_failures = counter("loop_failures_total", "Rounds of background loops that ended in an exception", ("loop",))
_sweep_seconds = histogram("sweep_seconds", "Time one round of a sweep took", ("sweep",))


class Part(Protocol):
    """Something with a life: a bus, a server, a set of loops. `stop` may be called after a failed or missing start."""

    @property
    def name(self) -> str: ...

    async def start(self) -> Any: ...

    async def stop(self) -> Any: ...


class Sweep(Protocol[DoorsT_contra]):
    """One duty that time brings; gives how much it did."""

    def __call__(self, doors: DoorsT_contra, now: datetime, /) -> Awaitable[int]: ...


async def start_parts(parts: Sequence[Part], telemetry: Telemetry | None = None) -> None:
    """Start parts in order; when one fails, those already started are stopped and the failure is raised."""
    with telemetry.use() if telemetry else contextlib.nullcontext():
        for index, part in enumerate(parts):
            try:
                await part.start()
            except BaseException:
                await stop_parts(parts[: index + 1])
                raise


async def stop_parts(parts: Sequence[Part], *, timeout: float = STOP_SECONDS) -> None:
    """Stop parts in reverse, each within `timeout` seconds; what goes wrong is logged and the rest still stops."""
    for part in reversed(parts):
        try:
            async with asyncio.timeout(timeout):
                await part.stop()
        except TimeoutError:
            _log.warning("a part did not stop in time and is left behind", part=part.name, seconds=timeout)
        except Exception:  # noqa: BLE001 (the rest must still stop)
            _log.exception("a part failed to stop", part=part.name)


async def run(
    parts: Sequence[Part], *, telemetry: Telemetry | None = None, ready: Callable[[], None] | None = None
) -> None:
    """Start, tell `ready`, wait for a signal, stop. A failed start is raised after what was started has stopped."""
    die_with_parent()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, _on_signal, number, stopping)
    try:
        starting = asyncio.create_task(start_parts(parts, telemetry))
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        try:
            starting.result()
            if ready:
                ready()
            await waiting
        finally:
            waiting.cancel()
        await stop_parts(parts)
    finally:
        if telemetry:
            telemetry.close()
        for number in signals:
            loop.remove_signal_handler(number)


def _on_signal(number: int, stopping: asyncio.Event) -> None:
    if stopping.is_set():
        _log.warning("a second signal: ending at once", signal=signal.Signals(number).name)
        os._exit(128 + number)
    _log.info("stopping", signal=signal.Signals(number).name)
    stopping.set()


def die_with_parent() -> None:
    """On Linux, ask for SIGTERM when the parent dies, if the environment wants it; elsewhere nothing happens."""
    if os.environ.get(DIE_WITH_PARENT) != "1" or not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died while we asked
        os.kill(os.getpid(), signal.SIGTERM)


class Loop:
    """A part that runs `round_` again and again, `every` seconds apart, whatever it raises.

    Pauses are real time: with a ManualClock a test runs rounds itself.
    """

    def __init__(self, name: str, round_: Callable[[], Awaitable[object]], *, every: float) -> None:
        self.name = name
        self._round = round_
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()

    async def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the running round and wait for it to end."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})

    def nudge(self) -> None:
        """Begin the next round at once instead of after the pause."""
        self._nudged.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._nudged.clear()
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
                    await self._nudged.wait()


def background(name: str, work: Callable[[], Awaitable[object]]) -> Loop:
    """A part around work that should never end; when it ends or fails it is started again after a pause."""
    return Loop(name, work, every=FIRST_PAUSE)


class Sweeps(Generic[DoorsT]):
    """A part that does every duty of a table at its own interval; with `run_all_once(now)` a test does them by hand."""

    def __init__(
        self,
        service: str,
        doors: DoorsT,
        sweeps: Mapping[str, tuple[float, Sweep[DoorsT]]],
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service} sweeps"
        self._service = service
        self._doors = doors
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

    def nudge(self, name: str) -> None:
        """Do a duty at once instead of at its next time."""
        self._loops[name].nudge()

    async def run_once(self, name: str, now: datetime | None = None) -> int:
        """Do one duty now; gives how much it did."""
        _, sweep = self._sweeps[name]
        began = time.perf_counter()
        try:
            return await sweep(self._doors, now or self._clock.now())
        finally:
            _sweep_seconds.labels(f"{self._service}.{name}").observe(time.perf_counter() - began)

    async def run_all_once(self, now: datetime | None = None, *, only: Iterable[str] | None = None) -> int:
        """Do every duty (or those named) once, in the order of the table; gives how much they did together."""
        names = self._sweeps if only is None else only
        return sum([await self.run_once(name, now) for name in names])

    def _loop(self, name: str, seconds: float) -> Loop:
        async def do() -> None:
            await self.run_once(name)

        return Loop(f"{self._service}.{name}", do, every=seconds)


def _report(name: str, error: Exception, pause: float) -> None:
    if isinstance(error, Problem):
        _log.warning("a loop could not do its round", loop=name, why=error.message, reason=error.reason, pause=pause)
    else:
        _log.exception("a loop failed and goes on", loop=name, pause=pause, exc_info=error)
