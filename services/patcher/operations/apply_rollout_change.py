"""The step that all doors of a rollout share: load under its lock, ask the heart, save with facts and wants.

Rule: a rollout changes only here, under its row's lock, with its members as they are under that lock. Locks are taken
in one order, the rollout before its attempts, so that doors never wait for each other in a circle. Starting plugins
needs to know them first, so that is done in a step of its own (`starting`); everything else is done at once.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from libs.common import names
from libs.common.database import Transaction
from libs.common.telemetry import counter, span_at, use_traceparent
from libs.common.telemetry.spans import Attributes
from prunella.v1.events_pb2 import Event
from services.patcher import rollout as heart
from services.patcher.attempt import CancelRequested
from services.patcher.attempt import State as AttemptState
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals
from services.patcher.operations.apply_change import observe as observe_attempt
from services.patcher.rollout import CallOff, Change, MemberState, NotSwitched, Observation, RollBack, StartMore, Step
from services.patcher.store import control_group, members, rollouts
from services.patcher.store.rollouts import Kept
from services.patcher.wire.rollouts import rollout_event

TOLD = counter("rollout_facts_total", "What rollouts told", ("fact",))
RESULTS = counter("rollout_members_total", "Plugins of rollouts that reached a state", ("state",))
IN_FLIGHT = frozenset({MemberState.STARTED, MemberState.SWITCHED})
MOST_IN_FLIGHT = 10_000


async def observe(
    tx: Transaction, ctx: ServiceContext, kept: Kept, observation: Observation, *, cause: Event | None = None
) -> Kept:
    """Tells a rollout, loaded under its lock, what was observed and saves what follows; the rollout afterwards."""
    change = heart.next(kept.rollout, observation, tx.now)
    return await keep(tx, ctx, kept, change, getattr(observation, "member", None), cause=cause)


async def keep(
    tx: Transaction,
    ctx: ServiceContext,
    kept: Kept,
    change: Change,
    before: heart.Member | None = None,
    *,
    attempt: str = "",
    cause: Event | None = None,
) -> Kept:
    """Saves a change; `attempt` is the new attempt of the change's member."""
    moved = replace(kept, rollout=change.rollout)
    if change.rollout != kept.rollout or change.steps:
        await rollouts.save(tx, moved, change)
    if change.member is not None and (change.member != before or attempt):
        await members.save(tx, kept.rollout.id, change.member, attempt=attempt)
        state = change.member.state.value
        tx.after_commit(lambda: RESULTS.labels(state).inc())
    await tell(tx, moved, change, cause)
    _trace(tx, kept, change)
    return await _carry_out(tx, ctx, moved, change, cause)


async def tell(tx: Transaction, kept: Kept, change: Change, cause: Event | None = None) -> None:
    """Tells the facts of a change in the rollout's own trace."""
    with use_traceparent(kept.trace):
        for told in change.facts:
            tx.record(rollout_event(told, change.rollout, cause))
            tx.after_commit(TOLD.labels(told.told.value).inc)


def _trace(tx: Transaction, kept: Kept, change: Change) -> None:
    """A span for each state that was left, from its beginning."""
    for step in change.steps:
        tx.after_commit(_span(kept, step, tx.now))


def _span(kept: Kept, step: Step, now: datetime) -> Callable[[], None]:
    def make() -> None:
        name = f"rollout {step.from_state.value} → {step.to_state.value}"
        attributes: Attributes = {"rollout": kept.rollout.id, "wave": step.wave, "reason": step.reason[:200]}
        span_at(name, kept.rollout.update_time, now, parent=kept.trace, attributes=attributes)

    return make


async def _carry_out(tx: Transaction, ctx: ServiceContext, kept: Kept, change: Change, cause: Event | None) -> Kept:
    rollout = kept.rollout.id
    for want in change.wants:
        if isinstance(want, RollBack):
            await members.take_back(tx, rollout, want.first, want.last, want.reason)
    landed = change.member is not None and change.member.state not in IN_FLIGHT
    if landed or any(isinstance(want, RollBack) for want in change.wants):
        await members.free_slots(tx, rollout)
    if change.steps and kept.rollout.state in heart.FINAL:
        await members.let_go(tx, rollout)
        await control_group.forget(tx, rollout)
        subject = approvals.About(names.rollout(rollout))
        await approvals.void(tx, subject, f"the rollout is {kept.rollout.state}", cause=cause)
    for want in change.wants:
        if isinstance(want, CallOff):
            kept = await _call_off(tx, ctx, kept, want, cause)
    return kept


async def _call_off(tx: Transaction, ctx: ServiceContext, kept: Kept, want: CallOff, cause: Event | None) -> Kept:
    """Cancels what has no permit yet; what has one is in probation soon and gets its result."""
    for row in await members.in_state(tx, kept.rollout.id, [MemberState.STARTED], MOST_IN_FLIGHT):
        wish = CancelRequested("patcher", f"the rollout stopped: {want.reason}"[:500])
        attempt = await observe_attempt(tx, ctx, row.attempt, wish, cause=cause)
        if attempt is not None and attempt.state is AttemptState.CANCELLED:
            kept = await observe(tx, ctx, kept, NotSwitched(row.member, want.reason, again=True), cause=cause)
    return kept


def wants_start(change: Change) -> StartMore | None:
    """What a change wants started, if anything."""
    return next((want for want in change.wants if isinstance(want, StartMore)), None)
