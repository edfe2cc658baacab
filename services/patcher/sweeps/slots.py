"""Slots and what they are counted from: fleets are counted again, and no slot outlives its holder.

Rule: a slot ends with its holder in one transaction; this finds only what a broken hand left behind.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from libs.common.errors import Problem
from libs.common.telemetry import counter
from services.patcher.context import ServiceContext
from services.patcher.operations.ingest_queries import count_plugins
from services.patcher.store import fleets, slots

log = logging.getLogger(__name__)

SETTLED = timedelta(seconds=30)
RECLAIMED = counter("slots_reclaimed_total", "Slots whose holder was over")


async def reclaim(ctx: ServiceContext, now: datetime) -> int:
    """Frees slots whose holder is over."""
    freed = await ctx.database.transaction(lambda tx: slots.reclaim(tx, now - SETTLED))
    if freed:
        RECLAIMED.inc(freed)
        log.warning("%d slots had no holder any more", freed)
    return freed


async def count(ctx: ServiceContext, _now: datetime) -> int:
    """Counts again the fleets of packages that something is done for."""
    async with ctx.database.reading() as tx:
        packages = await fleets.stale(tx)
    for package in packages:
        try:
            found = await count_plugins(ctx, package)
        except Problem as problem:
            log.warning("the fleet of %s is not counted: %s", package, problem.message)
            return 0
        if found is not None:
            await _save(ctx, package, found)
    return len(packages)


async def _save(ctx: ServiceContext, package: str, found: int) -> None:
    await ctx.database.transaction(lambda tx: fleets.put(tx, package, found))


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "reclaim": (10.0, reclaim),
    "count": (5.0, count),
}
