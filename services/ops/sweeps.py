"""Time passed: facts get their positions, old spans go.

Facts are placed at once when one arrives in this process; the sweep finds those that another replica wrote down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from libs.common.errors import Problem
from services.ops.doors import TIMELINE, Doors
from services.ops.store import spans, timeline

log = logging.getLogger(__name__)

KEPT = timedelta(hours=72)
MOST_SPANS = 2_000_000
BATCH = 5000
LOOK = 0.5  # seconds between looks without a signal


async def place_facts(doors: Doors, now: datetime) -> int:  # noqa: ARG001 - every sweep is told the time
    """Gives positions to what was written down; how many."""
    placed = 0
    while batch := await doors.database.transaction(timeline.place):
        placed += batch
        doors.placed.ring()
    return placed


async def forget_spans(doors: Doors, now: datetime) -> int:
    """Removes spans older than 72 hours, and the oldest when there are too many; how many."""
    async with doors.database.reading() as reading:
        cut = await spans.cut(reading, MOST_SPANS)
    before = max(now - KEPT, cut) if cut else now - KEPT
    gone = 0
    while batch := await doors.database.transaction(lambda tx: spans.forget(tx, before, BATCH)):
        gone += batch
    return gone


Sweep = Callable[[Doors, datetime], Awaitable[int]]
SWEEPS: Mapping[str, tuple[float, Sweep]] = {"place_facts": (1.0, place_facts), "forget_spans": (300.0, forget_spans)}


class Placing:
    """Runs `place_facts` as soon as a fact arrives here."""

    name = "placing"

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to wait for facts."""
        self._task = asyncio.create_task(self._run(), name="ops placing")

    async def stop(self) -> None:
        """Stops; what has no position yet gets it after the next start."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self.doors.database.wait(TIMELINE, LOOK)
            try:
                await place_facts(self.doors, self.doors.clock.now())
            except Problem as problem:
                log.debug("facts wait for their positions: %s", problem.message)
            except Exception:
                log.exception("facts could not be given positions")
                await asyncio.sleep(1.0)
