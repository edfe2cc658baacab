"""What waits for people: reminded, escalated, expired; and asked anew when the plan is another one by now.

Rule: nobody starts an attempt here. Only an approval does; what the policy refuses meanwhile ends, and an approval that
was used does not expire. When the policy asks nobody any more, who was asked decides about the new plan.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from libs.common.database import Transaction
from libs.common.errors import Problem
from libs.common.names import parse
from libs.common.telemetry import use_traceparent
from services.patcher.approvals import Status, plan_hash
from services.patcher.attempt import UNPERMITTED, Attempt, CancelRequested, PlanApproved, State
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals as door
from services.patcher.operations.apply_change import Weighed, observe, weigh, weighed_out
from services.patcher.policy import Ask, Refuse
from services.patcher.store import approvals, attempts

log = logging.getLogger(__name__)


async def due(ctx: ServiceContext, now: datetime) -> int:
    """Reminds, escalates, and ends what nobody answered."""
    async with ctx.database.reading() as tx:
        found = [name for name in await approvals.due(tx, now) if name.startswith("attempts/")]
    for subject in found:
        attempt = parse("attempts", subject)
        try:
            await ctx.database.transaction(lambda tx, attempt=attempt: _due(tx, ctx, attempt))  # type: ignore[misc]
        except Problem as problem:
            log.warning("approval of %s waits: %s", subject, problem.message)
    return len(found)


async def _due(tx: Transaction, ctx: ServiceContext, name: str) -> None:
    attempt = await attempts.get(tx, name, lock=True)
    if attempt is None:
        return
    about = door.about(attempt)
    with use_traceparent(attempt.trace):
        if attempt.permitted or attempt.state not in UNPERMITTED | {State.APPLYING}:
            await door.used(tx, about)
            return
        after = await door.tick(tx, about)
        if after is not None and after.status is Status.EXPIRED and attempt.state is State.AWAITING_APPROVAL:
            await observe(tx, ctx, name, CancelRequested("patcher", f"nobody approved it: {after.reason}"))


async def waiting(ctx: ServiceContext, _now: datetime) -> int:
    """Looks whether plans that people are asked about are still the same, and whether policy still lets them be."""
    async with ctx.database.reading() as tx:
        asked = await attempts.in_state(tx, State.AWAITING_APPROVAL)
        turned = [attempt for attempt in asked if _turned(await weigh(tx, attempt, lock=False), attempt)]
    for attempt in turned:
        try:
            await ctx.database.transaction(lambda tx, attempt=attempt: _turn(tx, ctx, attempt))  # type: ignore[misc]
        except Problem as problem:
            log.warning("attempt %s waits: %s", attempt.id, problem.message)
    return len(turned)


def _turned(weighed: Weighed, attempt: Attempt) -> bool:
    return isinstance(weighed.said, Refuse) or _plan(weighed, attempt) != attempt.plan


def _plan(weighed: Weighed, attempt: Attempt) -> str:
    return plan_hash(door.plan_of(attempt, weighed.policy))


async def _turn(tx: Transaction, ctx: ServiceContext, seen: Attempt) -> None:
    attempt = await attempts.get(tx, seen.id, lock=True)
    if attempt is None or attempt.state is not State.AWAITING_APPROVAL:
        return
    weighed = await weigh(tx, attempt, lock=False)
    if not _turned(weighed, attempt):
        return
    if not isinstance(weighed.said, Refuse | Ask):
        weighed = replace(weighed, said=door.still(weighed.policy))
    with use_traceparent(attempt.trace):
        after = await observe(tx, ctx, attempt.id, PlanApproved(weighed.said, _plan(weighed, attempt)))
        await weighed_out(tx, weighed, after, None)


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "approvals": (1.0, due),
    "plans": (1.0, waiting),
}
