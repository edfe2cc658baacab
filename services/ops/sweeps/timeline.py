"""Time passed: facts get their positions, old spans go.

Facts are placed at once when one arrives in this process (the reaction triggers the sweep); its interval finds those
that another replica wrote down.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.ops.context import ServiceContext
from services.ops.store import spans, timeline

KEPT = timedelta(hours=72)
MOST_SPANS = 2_000_000
BATCH = 5000


async def place_facts(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is told the time
    """Gives positions to what was written down; how many."""
    placed = 0
    while batch := await ctx.database.transaction(timeline.place):
        placed += batch
        ctx.placed.ring()
    return placed


async def forget_spans(ctx: ServiceContext, now: datetime) -> int:
    """Removes spans older than 72 hours, and the oldest when there are too many; how many."""
    async with ctx.database.reading() as reading:
        cut = await spans.cut(reading, MOST_SPANS)
    before = max(now - KEPT, cut) if cut else now - KEPT
    gone = 0
    while batch := await ctx.database.transaction(lambda tx: spans.forget(tx, before, BATCH)):
        gone += batch
    return gone
