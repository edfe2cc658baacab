"""Time passed: facts from before there were stories and figures leave their marks, too.

Marks merge in any order and however often, so what is new need not wait for what is old.
"""

from __future__ import annotations

from datetime import datetime

from libs.common.database import Transaction
from prunella.v1.events_pb2 import Event
from services.ops.context import ServiceContext
from services.ops.store import insight
from services.ops.wire.marks import left_by

BATCH = 200


async def mark_past(ctx: ServiceContext, now: datetime) -> int:  # noqa: ARG001 - every sweep is told the time
    """Marks what was on the timeline before; how many facts."""

    async def work(tx: Transaction) -> tuple[int, int]:
        payloads, position = await insight.past(tx, BATCH)
        for payload in payloads:
            for mark in left_by(Event.FromString(payload)):
                await insight.write(tx, mark)
        if position:
            await insight.marked(tx, position)
        return len(payloads), position

    total = 0
    while True:
        count, position = await ctx.database.transaction(work)
        total += count
        if not position:
            return total
