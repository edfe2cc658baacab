"""The step that all doors share: load, ask the heart, save with facts and errands.

Rule: an attempt changes only here, under its row's lock, in the transaction that also tells its facts, writes its
history, takes or frees its slot and sends its errands. Gates are asked again each time an attempt wants to go on.
"""

from dataclasses import dataclass, replace

from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.approvals import plan_hash
from services.patcher.attempt import (
    FINAL,
    IN_FLIGHT,
    Attempt,
    Bounds,
    Change,
    ErrandKind,
    GatesEvaluated,
    Observation,
    State,
)
from services.patcher.context import SCHEMA, ServiceContext, Settings
from services.patcher.operations import approvals
from services.patcher.policy import PLUGIN_BUSY, Action, Allow, Ask, Hold, Policy, Refuse, Reply, ask, in_flight_limit
from services.patcher.store import attempts, gate_inputs, slots
from services.patcher.store import policy as policies

ENDED = counter("attempts_ended_total", "Attempts that reached a final state", ("state",))
GATES = counter("gate_answers_total", "Answers of the gates to attempts that want to go on", ("gate", "answer"))


@dataclass(frozen=True)
class Weighed:
    """What the gates say, under which policy, and the plan people approved or are to be asked about (its hash)."""

    said: Reply
    policy: Policy
    plan: str
    needs_staging: bool

    @property
    def gated(self) -> GatesEvaluated:
        """The observation for the attempt's heart."""
        return GatesEvaluated(self.said, self.needs_staging, self.plan)


def bounds(settings: Settings, policy: Policy) -> Bounds:
    """The times of an attempt that begins now."""
    return Bounds(
        dead_man=settings.dead_man,
        staging_timeout=policy.staging_timeout.total_seconds(),
        health_timeout=policy.health_check_timeout.total_seconds(),
    )


async def weigh(tx: Transaction, attempt: Attempt, *, lock: bool = True) -> Weighed:
    """What the gates say about an attempt right now; a plugin that another attempt has is one of them.

    With `lock` a yes to the next switch has taken its slot.
    """
    policy, _ = await policies.get(tx)
    plan = plan_hash(approvals.plan_of(attempt, policy))
    inputs = await gate_inputs.look(tx, policy, attempt, plan)
    staging = needs_staging(policy, attempt)
    switches = attempt.state is not State.PENDING or not staging
    # The sandbox is not in flight.
    found = ask(policy, inputs if switches else replace(inputs, in_flight=0))
    other = await attempts.busy(tx, attempt.plugin, attempt.id, lock=lock)
    if other is not None and not isinstance(found, Refuse):
        found = Hold(PLUGIN_BUSY, f"attempt {other.id} has the plugin")
    if lock and switches and isinstance(found, Allow):
        limit = in_flight_limit(policy, inputs.fleet)
        taken = await slots.take(tx, attempt.package, attempt.id, limit)
        if taken is not None:
            found = Hold("BUDGET", f"{taken} attempts are in flight, {limit} may be")
    asked = isinstance(found, Ask) or (inputs.approved and bool(attempt.plan))
    return Weighed(found, policy, plan if asked else "", staging)


async def answer(tx: Transaction, attempt: Attempt, *, lock: bool = True) -> tuple[Reply, Policy]:
    """What the gates say about an attempt right now, and the policy they asked."""
    weighed = await weigh(tx, attempt, lock=lock)
    return weighed.said, weighed.policy


async def keep(tx: Transaction, ctx: ServiceContext, change: Change, cause: Event | None, *, new: bool = False) -> None:
    """Saves a change with its history, slot, facts and errands."""
    if new:
        await attempts.insert(tx, change)
    else:
        await attempts.save(tx, change)
    if change.transitions:
        await _settle(tx, ctx, change.attempt, cause)
    await _tell(tx, ctx, change, cause)


async def _settle(tx: Transaction, ctx: ServiceContext, attempt: Attempt, cause: Event | None) -> None:
    """Frees the slot of what is not in flight any more, and ends what people need not answer any more."""
    over = attempt.state in FINAL
    if over and attempt.plan:
        await approvals.void(tx, approvals.about(attempt), f"the attempt is {attempt.state}", cause=cause)
    if attempt.state in IN_FLIGHT:
        return
    package = await slots.free(tx, attempt.id)
    waiting = await attempts.next_for_slot(tx, package) if package else None
    if waiting:
        await send(tx, SCHEMA, ErrandKind.GO_ON, waiting, {}, database=ctx.database)


async def _tell(tx: Transaction, ctx: ServiceContext, change: Change, cause: Event | None) -> None:
    for told in change.facts:
        tx.record(wire.event(told, change.attempt, cause))
    for errand in change.errands:
        await send(tx, SCHEMA, errand.kind, change.attempt.id, errand.payload, key=errand.key, database=ctx.database)
    if change.transitions and change.attempt.state in FINAL:
        state = change.attempt.state.value
        tx.after_commit(lambda: ENDED.labels(state).inc())


async def observe(
    tx: Transaction, ctx: ServiceContext, attempt: str, observation: Observation, *, cause: Event | None = None
) -> Attempt | None:
    """Tells an attempt what was observed and saves what follows; None when there is no such attempt."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None:
        return None
    change = heart.next(found, observation, tx.now)
    if change.attempt != found or change.transitions:
        await keep(tx, ctx, change, cause)
    else:
        await _tell(tx, ctx, change, cause)
    return change.attempt


async def go_on(tx: Transaction, ctx: ServiceContext, attempt: str, *, cause: Event | None = None) -> Attempt | None:
    """Asks the gates and lets the attempt go on, wait, ask people or end."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None or found.state not in {State.PENDING, State.STAGED}:
        return found
    weighed = await weigh(tx, found)
    after = await observe(tx, ctx, attempt, weighed.gated, cause=cause)
    await weighed_out(tx, weighed, after, cause)
    return after


async def weighed_out(tx: Transaction, weighed: Weighed, attempt: Attempt | None, cause: Event | None) -> None:
    """Asks people when the gates said so and nothing is left to do before."""
    said = weighed.said
    gate = "" if isinstance(said, Allow) else said.gate
    word = type(said).__name__.lower()
    tx.after_commit(lambda: GATES.labels(gate or "none", word).inc())
    if isinstance(said, Ask) and attempt is not None and attempt.state is State.AWAITING_APPROVAL:
        await approvals.ask_about(tx, attempt, weighed.policy, said, cause=cause)


def needs_staging(policy: Policy, attempt: Attempt) -> bool:
    """Whether the sandbox has to prove something first."""
    return policy.require_staging and attempt.action is not Action.RESTART and not attempt.other_slot
