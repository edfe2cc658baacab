"""Door 3, time passed: a decision that is still pending after its deadline is made without an answer."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from libs.common.database import Transaction
from libs.common.errors import Problem
from libs.common.telemetry import current_telemetry, use_traceparent
from services.decider.context import ServiceContext, conclude, still_open
from services.decider.decision import Decision
from services.decider.store import decisions

MOST = 100


async def overdue(ctx: ServiceContext, now: datetime) -> int:
    """Ends decisions that have asked for too long; returns how many there were."""
    async with ctx.database.reading() as tx:
        late = await decisions.overdue(tx, now, MOST)
    for decision in late:
        with use_traceparent(decision.traceparent), current_telemetry().span("sweep overdue"):
            await _end(ctx, decision)
    return len(late)


async def _end(ctx: ServiceContext, decision: Decision) -> None:
    try:
        standing = await still_open(ctx, decision.incident, decision.inputs.round)
    except Problem:
        # patcher asks again before it acts, so deciding is the safer half.
        standing = True

    async def work(tx: Transaction) -> None:
        if standing:
            await conclude(tx, ctx, decision.id, None, "no answer in time")
        else:
            await decisions.supersede(tx, decision.id)

    await ctx.database.transaction(work)


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {"overdue": (1.0, overdue)}
