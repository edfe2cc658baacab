"""The step that all doors share for an attempt: load under its lock, ask the heart, save with facts and errands.

Rule: an attempt changes only here, under its row's lock, in the transaction that also records its facts, writes its
history, takes or frees its slot and sends its errands. Gates are evaluated again each time an attempt wants to go on.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher import watch, wire
from services.patcher.approvals import plan_hash
from services.patcher.attempt import (
    FINAL,
    IN_FLIGHT,
    Attempt,
    Bounds,
    CancelRequested,
    Change,
    ErrandKind,
    GatesEvaluated,
    Observation,
    State,
)
from services.patcher.context import SCHEMA, ServiceContext, Settings
from services.patcher.operations import approvals
from services.patcher.policy import PLUGIN_BUSY, Action, Allow, Ask, Hold, Policy, Refuse, Reply, ask, in_flight_limit
from services.patcher.store import attempts, gate_inputs, slots, watches
from services.patcher.store import policy as policies

INCIDENT_OVER = "its incident is over, or with a person"
ENDED = counter("attempts_ended_total", "Attempts that reached a final state", ("state",))
GATES = counter("gate_answers_total", "Answers of the gates to attempts that want to go on", ("gate", "answer"))


@dataclass(frozen=True)
class GateResult:
    """The gates' reply, under which policy, and the hash of the plan that was, or is to be, approved."""

    reply: Reply
    policy: Policy
    plan_hash: str
    needs_staging: bool

    @property
    def observation(self) -> GatesEvaluated:
        """The observation for the attempt's heart."""
        return GatesEvaluated(self.reply, self.needs_staging, self.plan_hash)


def bounds(settings: Settings, policy: Policy) -> Bounds:
    """The times of an attempt that begins now."""
    return Bounds(
        dead_man=settings.dead_man,
        staging_timeout=policy.staging_timeout.total_seconds(),
        health_timeout=policy.health_check_timeout.total_seconds(),
    )


async def evaluate_gates(tx: Transaction, attempt: Attempt, *, lock: bool = True) -> GateResult:
    """What the gates reply to an attempt right now; a plugin that another attempt has is one of them.

    With `lock` a yes to the next switch has taken its slot.
    """
    policy = await policies.get(tx)
    plan = plan_hash(approvals.plan_of(attempt, policy))
    inputs = await gate_inputs.read(tx, policy, attempt, plan)
    staging = needs_staging(policy, attempt)
    switches = attempt.state is not State.PENDING or not staging
    # The sandbox is not in flight.
    reply = ask(policy, inputs if switches else replace(inputs, in_flight=0))
    other = await attempts.occupying(tx, attempt.plugin, attempt.id, lock=lock)
    if other is not None and not isinstance(reply, Refuse):
        reply = Hold(PLUGIN_BUSY, f"attempt {other.id} has the plugin")
    if lock and switches and isinstance(reply, Allow):
        limit = in_flight_limit(policy, inputs.fleet)
        taken = await slots.take(tx, attempt.package, attempt.id, attempt.merchant, limit)
        if taken is not None:
            reply = Hold("BUDGET", f"{taken} attempts are in flight, {limit} may be")
    planned = isinstance(reply, Ask) or (inputs.approved and bool(attempt.plan_hash))
    return GateResult(reply, policy, plan if planned else "", staging)


def needs_staging(policy: Policy, attempt: Attempt) -> bool:
    """Whether the sandbox has to prove something first."""
    return policy.require_staging and attempt.action is not Action.RESTART and not attempt.other_slot


async def after_gates(tx: Transaction, gates: GateResult, attempt: Attempt | None, cause: Event | None) -> None:
    """Counts the reply, and requests approval when the gates want it and nothing is left to do before."""
    reply = gates.reply
    gate, kind = "" if isinstance(reply, Allow) else reply.gate, type(reply).__name__.lower()
    tx.after_commit(lambda: GATES.labels(gate or "none", kind).inc())
    if isinstance(reply, Ask) and attempt is not None and attempt.state is State.AWAITING_APPROVAL:
        await approvals.request_for_attempt(tx, attempt, gates.policy, reply, cause=cause)


async def observe(
    tx: Transaction, ctx: ServiceContext, attempt: str, observation: Observation, *, cause: Event | None = None
) -> Attempt | None:
    """Applies an observation to an attempt and saves what follows; None when there is no such attempt."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None:
        return None
    change = heart.next(found, observation, tx.now)
    if await _switches_in_vain(tx, found, change):
        # Not every switch asks for a permit, so the evidence is looked at in this transaction as well.
        change = heart.next(found, CancelRequested("patcher", INCIDENT_OVER), tx.now)
    if change.attempt != found or change.transitions:
        await save(tx, ctx, change, cause)
    else:
        await _record(tx, ctx, change, cause)
    return change.attempt


async def _switches_in_vain(tx: Transaction, before: Attempt, change: Change) -> bool:
    """Whether a change would send the command to switch for an incident that is over by now."""
    switches = change.attempt.state is State.APPLYING and before.state is not State.APPLYING
    return switches and await attempts.incident_over(tx, before)


async def resume(tx: Transaction, ctx: ServiceContext, attempt: str, *, cause: Event | None = None) -> Attempt | None:
    """Evaluates the gates and lets the attempt go on, wait, ask for approval or end."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None or found.state not in {State.PENDING, State.STAGED}:
        return found
    gates = await evaluate_gates(tx, found)
    after = await observe(tx, ctx, attempt, gates.observation, cause=cause)
    await after_gates(tx, gates, after, cause)
    return after


async def save(tx: Transaction, ctx: ServiceContext, change: Change, cause: Event | None, *, new: bool = False) -> None:
    """Saves a change with its history, slot, facts and errands."""
    await (attempts.insert if new else attempts.save)(tx, change)
    if change.transitions and change.attempt.state is State.SUCCESS:
        await _watch_on(tx, ctx, change.attempt)
    if change.transitions:
        await _release_slot(tx, ctx, change.attempt, cause)
    await _record(tx, ctx, change, cause)


async def _watch_on(tx: Transaction, ctx: ServiceContext, attempt: Attempt) -> None:
    """Begins the watch of what was committed on low evidence; that of its other slot finds its generation itself."""
    if not attempt.low_evidence:
        return
    generation, lasts = 0 if attempt.other_slot else attempt.generation, timedelta(seconds=ctx.settings.watch)
    await watches.insert(tx, watch.begin(attempt.id, attempt.plugin, attempt.merchant, generation, tx.now, lasts))


async def _release_slot(tx: Transaction, ctx: ServiceContext, attempt: Attempt, cause: Event | None) -> None:
    """Frees the slot of what is not in flight any more, and ends an approval that nothing waits for any more."""
    if attempt.state in FINAL and attempt.plan_hash:
        why = attempt.reason or f"the attempt is {attempt.state}"
        await approvals.withdraw(tx, approvals.subject_of(attempt), why, cause=cause)
    if attempt.state in IN_FLIGHT:
        return
    package = await slots.free(tx, attempt.id)
    waiting = await attempts.next_for_slot(tx, package) if package else None
    if waiting:
        await send(tx, SCHEMA, ErrandKind.RESUME, waiting, {}, database=ctx.database)


async def _record(tx: Transaction, ctx: ServiceContext, change: Change, cause: Event | None) -> None:
    for happened in change.facts:
        tx.record(wire.attempt_event(happened, change.attempt, cause))
    for errand in change.errands:
        await send(tx, SCHEMA, errand.kind, change.attempt.id, errand.payload, key=errand.key, database=ctx.database)
    if change.transitions and change.attempt.state in FINAL:
        state = change.attempt.state.value
        tx.after_commit(lambda: ENDED.labels(state).inc())
