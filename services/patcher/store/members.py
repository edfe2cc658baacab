"""Rows of a rollout's members, and the slots of those in flight. Changed only under the rollout's lock.

Rule: a plugin in flight has a slot, and slots are numbered from 1 to the budget, so that no more are ever in flight
whoever counts. A plugin is reserved by one rollout at a time: a unique index says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.database import Transaction
from services.patcher.attempt import LIVE
from services.patcher.rollout import TOUCHED, Assignment, Member, MemberState

COLUMNS = (
    "plugin, merchant, wave, start_order, state, switch_number, counted_against, tries, reason, label, attempt, "
    "rollback_requested"
)
LIVE_STATES = ", ".join(f"'{state}'" for state in sorted(LIVE))
TOUCHED_STATES = ", ".join(f"'{state}'" for state in TOUCHED)
INSERT = """
INSERT INTO patcher.rollout_members (rollout, plugin, merchant, label, wave, start_order, state)
SELECT :rollout, * FROM unnest(
    CAST(:plugins AS text[]), CAST(:merchants AS text[]), CAST(:labels AS text[]), CAST(:waves AS integer[]),
    CAST(:orders AS integer[]), CAST(:states AS text[]))
"""
RESERVED = """
SELECT plugin, label, rollout FROM patcher.rollout_members
WHERE reserved AND plugin = ANY (CAST(:plugins AS text[])) ORDER BY start_order LIMIT 1
"""
GET = f"SELECT {COLUMNS} FROM patcher.rollout_members WHERE rollout = :rollout AND plugin = :plugin"
OF_ATTEMPT = "SELECT rollout, plugin FROM patcher.rollout_members WHERE attempt = :attempt LIMIT 1"
RESERVED_BY = "SELECT rollout FROM patcher.rollout_members WHERE reserved AND plugin = :plugin"
PAGE = f"""
SELECT {COLUMNS} FROM patcher.rollout_members
WHERE rollout = :rollout AND (cardinality(CAST(:states AS text[])) = 0 OR state = ANY (CAST(:states AS text[])))
  AND (wave, start_order) > (:wave, :start_order)
ORDER BY wave, start_order LIMIT :limit
"""
NEXT = f"""
SELECT {COLUMNS} FROM patcher.rollout_members m
WHERE rollout = :rollout AND state = 'waiting' AND wave <= :wave AND NOT EXISTS (
    SELECT 1 FROM patcher.attempts a WHERE a.plugin = m.plugin AND a.state IN ({LIVE_STATES}))
ORDER BY wave, start_order LIMIT :limit
"""
IN_STATE = f"""
SELECT {COLUMNS} FROM patcher.rollout_members WHERE rollout = :rollout AND state = ANY (CAST(:states AS text[]))
ORDER BY wave, start_order LIMIT :limit
"""
ROLLBACK_PENDING = f"""
SELECT {COLUMNS} FROM patcher.rollout_members
WHERE rollout = :rollout AND state = 'rolling_back' AND NOT rollback_requested ORDER BY wave, start_order LIMIT :limit
"""
SAVE = """
UPDATE patcher.rollout_members
SET wave = :wave, state = :state, switch_number = :switch_number, counted_against = :counted_against, tries = :tries,
    reason = :reason,
    attempt = CASE WHEN :attempt = '' THEN attempt ELSE :attempt END
WHERE rollout = :rollout AND plugin = :plugin
"""
REQUESTED = """
UPDATE patcher.rollout_members SET rollback_requested = :requested WHERE rollout = :rollout AND plugin = :plugin
"""
STATES = "SELECT plugin, state FROM patcher.rollout_members WHERE rollout = :rollout"
MARK_ROLLING_BACK = f"""
UPDATE patcher.rollout_members SET state = 'rolling_back', reason = :reason, rollback_requested = false
WHERE rollout = :rollout AND wave BETWEEN :first AND :last AND state IN ({TOUCHED_STATES})
"""
UNRESERVE = "UPDATE patcher.rollout_members SET reserved = false WHERE rollout = :rollout AND reserved"
TAKE_SLOT = """
INSERT INTO patcher.rollout_slots (rollout, number, plugin, merchant)
SELECT m.rollout, taken.number, m.plugin, m.merchant
FROM patcher.rollout_members m, generate_series(1, CAST(:budget AS integer)) AS taken (number)
WHERE m.rollout = :rollout AND m.plugin = :plugin AND NOT EXISTS (
    SELECT 1 FROM patcher.rollout_slots s WHERE s.rollout = :rollout AND s.number = taken.number)
ORDER BY taken.number LIMIT 1
"""
FREE_SLOTS = """
DELETE FROM patcher.rollout_slots s WHERE s.rollout = :rollout AND NOT EXISTS (
    SELECT 1 FROM patcher.rollout_members m
    WHERE m.rollout = s.rollout AND m.plugin = s.plugin AND m.state IN ('started', 'switched'))
"""


@dataclass(frozen=True)
class MemberRow:
    """A member with its place in the order of starts, its newest attempt, and whether its rollback was requested."""

    member: Member
    merchant: str
    start_order: int
    label: str
    attempt: str
    rollback_requested: bool


def read(row: Any) -> MemberRow:
    """The member in a row."""
    state = MemberState(row.state)
    member = Member(row.plugin, row.wave, state, row.switch_number, row.counted_against, row.tries, row.reason)
    return MemberRow(member, row.merchant, row.start_order, row.label, row.attempt, row.rollback_requested)


async def insert(
    tx: Transaction,
    rollout: str,
    members: Sequence[Member],
    assignments: Sequence[Assignment],
    plugins: Mapping[str, tuple[str, str]],
) -> None:
    """Saves the members of a new rollout; `plugins` holds the label and the merchant of each.

    Raises IntegrityError when another rollout has one of the plugins.
    """
    orders = {assignment.plugin: assignment.start_order for assignment in assignments}
    await tx.run(
        INSERT,
        rollout=rollout,
        plugins=[member.plugin for member in members],
        merchants=[plugins[member.plugin][1] for member in members],
        labels=[plugins[member.plugin][0] for member in members],
        waves=[member.wave for member in members],
        orders=[orders[member.plugin] for member in members],
        states=[member.state.value for member in members],
    )


async def reserved(tx: Transaction, plugins: Sequence[str]) -> tuple[str, str] | None:
    """One of these plugins that a rollout has already, by label or id, and the rollout."""
    row = await tx.first(RESERVED, plugins=list(plugins))
    return (row.label or row.plugin, row.rollout) if row else None


async def get(tx: Transaction, rollout: str, plugin: str) -> MemberRow | None:
    """One member."""
    row = await tx.first(GET, rollout=rollout, plugin=plugin)
    return read(row) if row else None


async def of_attempt(tx: Transaction, attempt: str) -> tuple[str, str] | None:
    """Rollout and plugin whose newest attempt this is."""
    row = await tx.first(OF_ATTEMPT, attempt=attempt)
    return (row.rollout, row.plugin) if row else None


async def reserved_by(tx: Transaction, plugin: str) -> str:
    """The live rollout that has the plugin, or an empty text."""
    return str(await tx.value(RESERVED_BY, plugin=plugin) or "")


async def page(
    tx: Transaction, rollout: str, states: Sequence[str], after: Sequence[Any] | None, limit: int
) -> list[MemberRow]:
    """Members in their order; `after` is (wave, start_order) of the last one seen, `states` empty for all."""
    wave, start_order = (int(after[0]), int(after[1])) if after else (0, 0)
    rows = await tx.all(PAGE, rollout=rollout, states=list(states), wave=wave, start_order=start_order, limit=limit)
    return [read(row) for row in rows]


async def upcoming(tx: Transaction, rollout: str, wave: int, limit: int) -> list[MemberRow]:
    """Waiting members of the waves so far that no attempt has, lowest wave and start order first."""
    return [read(row) for row in await tx.all(NEXT, rollout=rollout, wave=wave, limit=limit)]


async def in_state(tx: Transaction, rollout: str, states: Sequence[MemberState], limit: int) -> list[MemberRow]:
    """Members in these states."""
    rows = await tx.all(IN_STATE, rollout=rollout, states=[state.value for state in states], limit=limit)
    return [read(row) for row in rows]


async def rollback_pending(tx: Transaction, rollout: str, limit: int) -> list[MemberRow]:
    """Members being rolled back whose rollback has not been requested."""
    return [read(row) for row in await tx.all(ROLLBACK_PENDING, rollout=rollout, limit=limit)]


async def save(tx: Transaction, rollout: str, member: Member, *, attempt: str = "") -> None:
    """Saves a member; with `attempt`, its newest attempt."""
    values = vars(member) | {"state": member.state.value, "reason": member.reason[:500]}
    await tx.run(SAVE, rollout=rollout, attempt=attempt, **values)


async def set_rollback_requested(tx: Transaction, rollout: str, plugin: str, *, requested: bool) -> None:
    """Saves whether the rollback of a member is under way, or has to be requested."""
    await tx.run(REQUESTED, rollout=rollout, plugin=plugin, requested=requested)


async def states(tx: Transaction, rollout: str) -> dict[str, MemberState]:
    """Every plugin of a rollout and where it stands."""
    return {row.plugin: MemberState(row.state) for row in await tx.all(STATES, rollout=rollout)}


async def mark_rolling_back(tx: Transaction, rollout: str, first: int, last: int, reason: str) -> int:
    """Marks everything these waves touched as being rolled back; how many."""
    return await tx.run(MARK_ROLLING_BACK, rollout=rollout, first=first, last=last, reason=reason[:500])


async def unreserve(tx: Transaction, rollout: str) -> None:
    """Other rollouts may have the plugins."""
    await tx.run(UNRESERVE, rollout=rollout)


async def take_slot(tx: Transaction, rollout: str, plugin: str, budget: int) -> bool:
    """Takes a free slot for the plugin; False when there is none."""
    return bool(await tx.run(TAKE_SLOT, rollout=rollout, plugin=plugin, budget=budget))


async def free_slots(tx: Transaction, rollout: str) -> int:
    """Frees the slots of plugins that are not in flight any more; how many."""
    return await tx.run(FREE_SLOTS, rollout=rollout)
