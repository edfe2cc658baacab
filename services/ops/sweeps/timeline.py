"""Time passed: facts get their positions, old spans and probes are deleted.

Facts are placed at once when one arrives in this process (the reaction triggers the sweep); its interval finds those
that another replica wrote down.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.ops.context import ServiceContext
from services.ops.store import spans, timeline, uptime_probes

RETENTION = timedelta(hours=72)
PROBE_RETENTION = timedelta(days=400)
MOST_SPANS = 2_000_000
BATCH = 5000


async def place_facts(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is given it
    """Gives positions to what was written down; how many."""
    placed = 0
    while batch := await ctx.database.transaction(timeline.place):
        placed += batch
        ctx.placed.send()
    return placed


async def delete_old_spans(ctx: ServiceContext, now: datetime) -> int:
    """Removes spans older than 72 hours, and the oldest when there are too many; how many."""
    async with ctx.database.reading() as reading:
        limit = await spans.retention_limit(reading, MOST_SPANS)
    before = max(now - RETENTION, limit) if limit else now - RETENTION
    gone = 0
    while batch := await ctx.database.transaction(lambda tx: spans.delete_before(tx, before, BATCH)):
        gone += batch
    return gone


async def delete_old_probes(ctx: ServiceContext, now: datetime) -> int:
    """Removes probes older than 400 days; how many minutes."""
    gone, before = 0, now - PROBE_RETENTION
    while batch := await ctx.database.transaction(lambda tx: uptime_probes.delete_before(tx, before, BATCH)):
        gone += batch
    return gone
