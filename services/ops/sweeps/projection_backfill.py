"""Time passed: facts that were placed before a projection existed are projected, too.

Updates merge in any order and however often, so what is new need not wait for what is old.
"""

from __future__ import annotations

from datetime import datetime

from libs.common.database import Transaction
from prunella.v1.events_pb2 import Event
from services.ops import wire
from services.ops.context import ServiceContext
from services.ops.projections import project
from services.ops.store import projections

BATCH = 200


async def backfill_projections(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is given it
    """Projects what the backfill has left; how many facts."""

    async def work(tx: Transaction) -> tuple[int, int]:
        payloads, position = await projections.unprojected(tx, BATCH)
        for payload in payloads:
            for update in project(wire.decoded_fact(Event.FromString(payload))):
                await projections.merge(tx, update)
        if position:
            await projections.advance(tx, position)
        return len(payloads), position

    total = 0
    while True:
        count, position = await ctx.database.transaction(work)
        total += count
        if not position:
            return total
