"""The life of a process: parts start in order, run until a signal, and stop in reverse.

A part that does not stop in time is left behind and named in the log; nothing depends on a clean stop. The first
SIGTERM or SIGINT stops in order, the second ends the process at once.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog

from libs.common.telemetry import Telemetry

STOP_SECONDS: Final = 8.0
DIE_WITH_PARENT: Final = "PRUNELLA_DIE_WITH_PARENT"
_PR_SET_PDEATHSIG: Final = 1

_log = structlog.get_logger(__name__)


class Part(Protocol):
    """Something with a life: a bus, a server, a set of loops; called by its `name` when it has one.

    `stop` may be called after a failed or missing start.
    """

    async def start(self) -> Any: ...

    async def stop(self) -> Any: ...


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
            _log.warning("a part did not stop in time and is left behind", part=_name(part), seconds=timeout)
        except Exception:  # noqa: BLE001 (the rest must still stop)
            _log.exception("a part failed to stop", part=_name(part))


async def run(
    parts: Sequence[Part],
    *,
    telemetry: Telemetry | None = None,
    ready: Callable[[], None] | None = None,
    stop_seconds: float = STOP_SECONDS,
) -> None:
    """Start, tell `ready`, wait for a signal, stop. A failed start is raised after what was started has stopped.

    Each part gets `stop_seconds` to stop.
    """
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
        await stop_parts(parts, timeout=stop_seconds)
    finally:
        if telemetry:
            telemetry.close()
        for number in signals:
            loop.remove_signal_handler(number)


def _name(part: Part) -> str:
    return str(getattr(part, "name", type(part).__name__))


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
