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
from services.patcher.operations.apply_change import GateResult, after_gates, evaluate_gates, observe
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
    subject_of = door.subject_of(attempt)
    with use_traceparent(attempt.traceparent):
        if attempt.permitted or attempt.state not in UNPERMITTED | {State.APPLYING}:
            await door.mark_used(tx, subject_of)
            return
        after = await door.tick(tx, subject_of)
        if after is not None and after.status is Status.EXPIRED and attempt.state is State.AWAITING_APPROVAL:
            await observe(tx, ctx, name, CancelRequested("patcher", f"nobody approved it: {after.reason}"))


async def check_plans(ctx: ServiceContext, _now: datetime) -> int:
    """Looks whether plans that people are asked about are still the same, and whether policy still lets them be."""
    async with ctx.database.reading() as tx:
        approval = await attempts.in_state(tx, State.AWAITING_APPROVAL)
        outdated = [
            attempt for attempt in approval if _is_outdated(await evaluate_gates(tx, attempt, lock=False), attempt)
        ]
    for attempt in outdated:
        try:
            await ctx.database.transaction(lambda tx, attempt=attempt: _renew(tx, ctx, attempt))  # type: ignore[misc]
        except Problem as problem:
            log.warning("attempt %s waits: %s", attempt.id, problem.message)
    return len(outdated)


def _is_outdated(gates: GateResult, attempt: Attempt) -> bool:
    return isinstance(gates.reply, Refuse) or _plan(gates, attempt) != attempt.plan_hash


def _plan(gates: GateResult, attempt: Attempt) -> str:
    return plan_hash(door.plan_of(attempt, gates.policy))


async def _renew(tx: Transaction, ctx: ServiceContext, seen: Attempt) -> None:
    attempt = await attempts.get(tx, seen.id, lock=True)
    if attempt is None or attempt.state is not State.AWAITING_APPROVAL:
        return
    gates = await evaluate_gates(tx, attempt, lock=False)
    if not _is_outdated(gates, attempt):
        return
    if not isinstance(gates.reply, Refuse | Ask):
        gates = replace(gates, reply=door.keep_asking(gates.policy))
    with use_traceparent(attempt.traceparent):
        after = await observe(tx, ctx, attempt.id, PlanApproved(gates.reply, _plan(gates, attempt)))
        await after_gates(tx, gates, after, None)


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "approvals": (1.0, due),
    "plans": (1.0, check_plans),
}
