"""The step that all doors of a rollout share: load under its lock, ask the heart, save with facts and effects.

Rule: a rollout changes only here, under its row's lock, with its members as they are under that lock. Locks are taken
in one order, the rollout before its attempts, so that doors never wait for each other in a circle. Starting plugins
needs to know them first, so that is done in a step of its own (`launch_members`); everything else is done at once.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from libs.common import names
from libs.common.database import Transaction
from libs.common.telemetry import counter, current_telemetry, use_traceparent
from libs.common.telemetry.spans import Attributes
from prunella.v1.events_pb2 import Event
from services.patcher import rollout as heart
from services.patcher.approvals import Subject
from services.patcher.attempt import CancelRequested
from services.patcher.attempt import State as AttemptState
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals
from services.patcher.operations.apply_change import observe as observe_attempt
from services.patcher.rollout import (
    CancelUnpermitted,
    Change,
    MemberState,
    NotSwitched,
    Observation,
    RollBack,
    StartMembers,
    Transition,
)
from services.patcher.store import control_group, members, rollouts
from services.patcher.store.rollouts import StoredRollout
from services.patcher.wire import rollout_event

FACTS = counter("rollout_facts_total", "Facts of rollouts", ("fact",))
RESULTS = counter("rollout_members_total", "Plugins of rollouts that reached a state", ("state",))
IN_FLIGHT = frozenset({MemberState.STARTED, MemberState.SWITCHED})
MOST_IN_FLIGHT = 10_000


async def observe(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, observation: Observation, *, cause: Event | None = None
) -> StoredRollout:
    """Applies an observation to a rollout, loaded under its lock, and saves what follows; the rollout afterwards."""
    change = heart.next(stored.rollout, observation, tx.now)
    return await save(tx, ctx, stored, change, getattr(observation, "member", None), cause=cause)


async def save(
    tx: Transaction,
    ctx: ServiceContext,
    stored: StoredRollout,
    change: Change,
    before: heart.Member | None = None,
    *,
    attempt: str = "",
    cause: Event | None = None,
) -> StoredRollout:
    """Saves a change; `attempt` is the new attempt of the change's member."""
    moved = replace(stored, rollout=change.rollout)
    if change.rollout != stored.rollout or change.transitions:
        await rollouts.save(tx, moved, change)
    if change.member is not None and (change.member != before or attempt):
        await members.save(tx, stored.rollout.id, change.member, attempt=attempt)
        state = change.member.state.value
        tx.after_commit(lambda: RESULTS.labels(state).inc())
    await record(tx, moved, change, cause)
    _trace(tx, stored, change)
    return await _apply_effects(tx, ctx, moved, change, cause)


async def record(tx: Transaction, stored: StoredRollout, change: Change, cause: Event | None = None) -> None:
    """Records the facts of a change in the rollout's own trace."""
    with use_traceparent(stored.traceparent):
        for happened in change.facts:
            tx.record(rollout_event(happened, change.rollout, cause))
            tx.after_commit(FACTS.labels(happened.event.value).inc)


def _trace(tx: Transaction, stored: StoredRollout, change: Change) -> None:
    """A span for each state that was left, from its beginning."""
    for step in change.transitions:
        tx.after_commit(_span(stored, step, tx.now))


def _span(stored: StoredRollout, step: Transition, now: datetime) -> Callable[[], None]:
    def make() -> None:
        name = f"rollout {step.from_state.value} → {step.to_state.value}"
        attributes: Attributes = {"rollout": stored.rollout.id, "wave": step.wave, "reason": step.reason[:200]}
        current_telemetry().span_at(
            name, stored.rollout.update_time, now, parent=stored.traceparent, attributes=attributes
        )

    return make


async def _apply_effects(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, change: Change, cause: Event | None
) -> StoredRollout:
    rollout = stored.rollout.id
    for effect in change.effects:
        if isinstance(effect, RollBack):
            await members.mark_rolling_back(tx, rollout, effect.first, effect.last, effect.reason)
    landed = change.member is not None and change.member.state not in IN_FLIGHT
    if landed or any(isinstance(effect, RollBack) for effect in change.effects):
        await members.free_slots(tx, rollout)
    if change.transitions and stored.rollout.state in heart.FINAL:
        await members.unreserve(tx, rollout)
        await control_group.forget(tx, rollout)
        subject = Subject(names.rollout(rollout))
        await approvals.withdraw(tx, subject, f"the rollout is {stored.rollout.state}", cause=cause)
    for effect in change.effects:
        if isinstance(effect, CancelUnpermitted):
            stored = await _cancel_unpermitted(tx, ctx, stored, effect, cause)
    return stored


async def _cancel_unpermitted(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, effect: CancelUnpermitted, cause: Event | None
) -> StoredRollout:
    """Cancels what has no permit yet; what has one is in probation soon and gets its result."""
    for row in await members.in_state(tx, stored.rollout.id, [MemberState.STARTED], MOST_IN_FLIGHT):
        wanted = CancelRequested("patcher", f"the rollout stopped: {effect.reason}"[:500])
        attempt = await observe_attempt(tx, ctx, row.attempt, wanted, cause=cause)
        if attempt is not None and attempt.state is AttemptState.CANCELLED:
            stored = await observe(tx, ctx, stored, NotSwitched(row.member, effect.reason, retry=True), cause=cause)
    return stored


def start_effect(change: Change) -> StartMembers | None:
    """What a change wants started, if anything."""
    return next((effect for effect in change.effects if isinstance(effect, StartMembers)), None)
