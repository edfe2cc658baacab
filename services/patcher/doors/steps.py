"""The step that all doors share: load, ask the heart, save with facts and errands.

Rule: an attempt changes only here, under its row's lock, in the transaction that also tells its facts, writes its
history and sends its errands. Gates are asked again each time an attempt wants to go on.
"""

from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import FINAL, Attempt, Bounds, Change, Gated, Observation
from services.patcher.doors.given import SCHEMA, Doors, Settings
from services.patcher.policy import PLUGIN_BUSY, Action, Answer, Hold, Policy, Refuse, Wish, gate
from services.patcher.store import attempts, kill_switches
from services.patcher.store import policy as policies

ENDED = counter("attempts_ended_total", "Attempts that reached a final state", ("state",))


def bounds(settings: Settings, policy: Policy) -> Bounds:
    """The times of an attempt that begins now."""
    return Bounds(
        dead_man=settings.dead_man,
        staging_timeout=policy.staging_timeout.total_seconds(),
        health_timeout=policy.health_check_timeout.total_seconds(),
    )


async def answer(tx: Transaction, attempt: Attempt, *, lock: bool = True) -> tuple[Answer, Policy]:
    """What the gates say about an attempt right now; a plugin that another attempt has is one of them."""
    policy, _ = await policies.get(tx)
    staged = attempt.staging.passed if attempt.staging else None
    # Before staging is due only its result is missing; from then on it must be good.
    due = attempt.state is heart.State.STAGED and attempt.action is not Action.RESTART and not attempt.other_slot
    wish = Wish(
        attempt.plugin,
        attempt.merchant,
        attempt.action,
        attempt.severity,
        attempt.confidence,
        bool(staged) if due else None,
    )
    found = gate(policy, await kill_switches.engaged(tx), wish)
    other = await attempts.busy(tx, attempt.plugin, attempt.id, lock=lock)
    if other is not None and not isinstance(found, Refuse):
        return Hold(PLUGIN_BUSY, f"attempt {other.id} has the plugin"), policy
    return found, policy


async def keep(tx: Transaction, doors: Doors, change: Change, cause: Event | None, *, new: bool = False) -> None:
    """Saves a change with its history, facts and errands."""
    if new:
        await attempts.insert(tx, change)
    else:
        await attempts.save(tx, change)
    await _tell(tx, doors, change, cause)


async def _tell(tx: Transaction, doors: Doors, change: Change, cause: Event | None) -> None:
    for told in change.facts:
        tx.record(wire.event(told, change.attempt, cause))
    for errand in change.errands:
        await send(tx, SCHEMA, errand.kind, change.attempt.id, errand.payload, key=errand.key, database=doors.database)
    if change.steps and change.attempt.state in FINAL:
        state = change.attempt.state.value
        tx.after_commit(lambda: ENDED.labels(state).inc())


async def observe(
    tx: Transaction, doors: Doors, attempt: str, observation: Observation, *, cause: Event | None = None
) -> Attempt | None:
    """Tells an attempt what was observed and saves what follows; None when there is no such attempt."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None:
        return None
    change = heart.next(found, observation, tx.now)
    if change.attempt != found or change.steps:
        await keep(tx, doors, change, cause)
    else:
        await _tell(tx, doors, change, cause)
    return change.attempt


async def go_on(tx: Transaction, doors: Doors, attempt: str, *, cause: Event | None = None) -> Attempt | None:
    """Asks the gates and lets the attempt go on, wait or end."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None or found.state not in {heart.State.PENDING, heart.State.STAGED}:
        return found
    said, policy = await answer(tx, found)
    return await observe(tx, doors, attempt, Gated(said, needs_staging(policy, found)), cause=cause)


def needs_staging(policy: Policy, attempt: Attempt) -> bool:
    """Whether the sandbox has to prove something first."""
    return policy.require_staging and attempt.action is not Action.RESTART and not attempt.other_slot
