"""A plane in the foreground: it runs until somebody says stop.

Rule: the first Ctrl-C (or SIGTERM, or a closed terminal) stops everything in order, at any moment, also while it
starts; the second ends everything at once. Both leave no process and no port behind. What runs on the plane, such as
the demo, is a coroutine that is cancelled first and may clean up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from deploy.local.binaries import NotInstalled
from deploy.local.child import kill_all
from deploy.local.plane import Occupied, Plane, Say
from deploy.local.postgres import Unready
from deploy.local.roles import NotAllowed
from deploy.local.state import State

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Body = Callable[[Plane], Awaitable[int]]


def say(line: str) -> None:
    """One line of progress for a person; standard output stays free for results."""
    print(line, file=sys.stderr, flush=True)


async def until_stopped(_plane: Plane) -> int:
    """The plane by itself: runs until somebody says stop."""
    await asyncio.get_running_loop().create_future()
    return 0


async def run(
    body: Body = until_stopped,
    *,
    state: State | None = None,
    fresh: bool = False,
    say: Say = say,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Starts the plane (or attaches), runs `body`, and stops it when `body` ends or a signal comes.

    Returns body's status, 0 after a signal, 1 when the plane could not be started (and says why).
    """
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(_work(body, state=state, fresh=fresh, say=say, environment=environment))
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            kill_all()
            os._exit(130)
        asked = True
        say("stopping (Ctrl-C again: at once)")
        work.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        return await work
    except asyncio.CancelledError:
        if not asked:
            raise
        say("stopped; the data stays (prunella up --fresh forgets it)")
        return 0
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _work(body: Body, **options: Any) -> int:
    tell: Say = options["say"]
    try:
        plane = await Plane.start(**options)
    except (NotInstalled, NotAllowed, Unready, Occupied, LookupError, OSError) as problem:
        tell(f"prunella: {problem}")
        return 1
    try:
        return await body(plane)
    finally:
        # Not to be interrupted by the cancellation that brought us here.
        await asyncio.shield(asyncio.create_task(plane.stop()))
