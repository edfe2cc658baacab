"""Rows of a rollout's members, and the slots of those in flight. Changed only under the rollout's lock.

Rule: a plugin in flight has a slot, and slots are numbered from 1 to the budget, so that no more are ever in flight
whoever counts. A plugin is held by one rollout at a time: a unique index says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.database import Transaction
from services.patcher.attempt import LIVE
from services.patcher.rollout import TOUCHED, Assignment, Member, MemberState

COLUMNS = "plugin, wave, rank, state, place, against, tries, reason, label, attempt, asked"
LIVE_STATES = ", ".join(f"'{state}'" for state in sorted(LIVE))
TOUCHED_STATES = ", ".join(f"'{state}'" for state in TOUCHED)
INSERT = """
INSERT INTO patcher.rollout_members (rollout, plugin, label, wave, rank, state)
SELECT :rollout, * FROM unnest(
    CAST(:plugins AS text[]), CAST(:labels AS text[]), CAST(:waves AS integer[]), CAST(:ranks AS integer[]),
    CAST(:states AS text[]))
"""
HELD = """
SELECT plugin, label, rollout FROM patcher.rollout_members
WHERE holds AND plugin = ANY (CAST(:plugins AS text[])) ORDER BY rank LIMIT 1
"""
GET = f"SELECT {COLUMNS} FROM patcher.rollout_members WHERE rollout = :rollout AND plugin = :plugin"
OF_ATTEMPT = "SELECT rollout, plugin FROM patcher.rollout_members WHERE attempt = :attempt LIMIT 1"
HOLDER = "SELECT rollout FROM patcher.rollout_members WHERE holds AND plugin = :plugin"
PAGE = f"""
SELECT {COLUMNS} FROM patcher.rollout_members
WHERE rollout = :rollout AND (cardinality(CAST(:states AS text[])) = 0 OR state = ANY (CAST(:states AS text[])))
  AND (wave, rank) > (:wave, :rank)
ORDER BY wave, rank LIMIT :limit
"""
NEXT = f"""
SELECT {COLUMNS} FROM patcher.rollout_members m
WHERE rollout = :rollout AND state = 'waiting' AND wave <= :wave AND NOT EXISTS (
    SELECT 1 FROM patcher.attempts a WHERE a.plugin = m.plugin AND a.state IN ({LIVE_STATES}))
ORDER BY wave, rank LIMIT :limit
"""
IN_STATE = f"""
SELECT {COLUMNS} FROM patcher.rollout_members WHERE rollout = :rollout AND state = ANY (CAST(:states AS text[]))
ORDER BY wave, rank LIMIT :limit
"""
UNASKED = f"""
SELECT {COLUMNS} FROM patcher.rollout_members
WHERE rollout = :rollout AND state = 'rolling_back' AND NOT asked ORDER BY wave, rank LIMIT :limit
"""
SAVE = """
UPDATE patcher.rollout_members
SET wave = :wave, state = :state, place = :place, against = :against, tries = :tries, reason = :reason,
    attempt = CASE WHEN :attempt = '' THEN attempt ELSE :attempt END
WHERE rollout = :rollout AND plugin = :plugin
"""
REQUESTED = "UPDATE patcher.rollout_members SET asked = :asked WHERE rollout = :rollout AND plugin = :plugin"
STATES = "SELECT plugin, state FROM patcher.rollout_members WHERE rollout = :rollout"
TAKE_BACK = f"""
UPDATE patcher.rollout_members SET state = 'rolling_back', reason = :reason, asked = false
WHERE rollout = :rollout AND wave BETWEEN :first AND :last AND state IN ({TOUCHED_STATES})
"""
LET_GO = "UPDATE patcher.rollout_members SET holds = false WHERE rollout = :rollout AND holds"
TAKE_SLOT = """
INSERT INTO patcher.rollout_slots (rollout, number, plugin)
SELECT :rollout, taken.number, :plugin FROM generate_series(1, CAST(:budget AS integer)) AS taken (number)
WHERE NOT EXISTS (
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
    """A member with its place in the order, its newest attempt, and whether its rollback was asked for."""

    member: Member
    start_order: int
    label: str
    attempt: str
    asked: bool


def read(row: Any) -> MemberRow:
    """The member in a row."""
    member = Member(
        row.plugin, row.wave, MemberState(row.state), row.switch_number, row.counted_against, row.tries, row.reason
    )
    return MemberRow(member, row.start_order, row.label, row.attempt, row.asked)


async def insert(
    tx: Transaction, rollout: str, members: Sequence[Member], places: Sequence[Assignment], labels: dict[str, str]
) -> None:
    """Saves the members of a new rollout. Raises IntegrityError when another rollout has one of the plugins."""
    ranks = {switch_number.plugin: switch_number.start_order for switch_number in places}
    await tx.run(
        INSERT,
        rollout=rollout,
        plugins=[member.plugin for member in members],
        labels=[labels.get(member.plugin, "") for member in members],
        waves=[member.wave for member in members],
        ranks=[ranks[member.plugin] for member in members],
        states=[member.state.value for member in members],
    )


async def reserved(tx: Transaction, plugins: Sequence[str]) -> tuple[str, str] | None:
    """One of these plugins that a rollout has already, by label or id, and the rollout."""
    row = await tx.first(HELD, plugins=list(plugins))
    return (row.label or row.plugin, row.rollout) if row else None


async def get(tx: Transaction, rollout: str, plugin: str) -> MemberRow | None:
    """One member."""
    row = await tx.first(GET, rollout=rollout, plugin=plugin)
    return read(row) if row else None


async def of_attempt(tx: Transaction, attempt: str) -> tuple[str, str] | None:
    """Rollout and plugin whose newest attempt this is."""
    row = await tx.first(OF_ATTEMPT, attempt=attempt)
    return (row.rollout, row.plugin) if row else None


async def reserving_rollout(tx: Transaction, plugin: str) -> str:
    """The live rollout that has the plugin, or an empty text."""
    return str(await tx.value(HOLDER, plugin=plugin) or "")


async def page(
    tx: Transaction, rollout: str, states: Sequence[str], after: Sequence[Any] | None, limit: int
) -> list[MemberRow]:
    """Members in their order; `after` is (wave, rank) of the last one seen, `states` empty for all."""
    wave, start_order = (int(after[0]), int(after[1])) if after else (0, 0)
    rows = await tx.all(PAGE, rollout=rollout, states=list(states), wave=wave, start_order=start_order, limit=limit)
    return [read(row) for row in rows]


async def upcoming(tx: Transaction, rollout: str, wave: int, limit: int) -> list[MemberRow]:
    """Waiting members of the waves so far that no attempt has, lowest wave and rank first."""
    return [read(row) for row in await tx.all(NEXT, rollout=rollout, wave=wave, limit=limit)]


async def in_state(tx: Transaction, rollout: str, states: Sequence[MemberState], limit: int) -> list[MemberRow]:
    """Members in these states."""
    rows = await tx.all(IN_STATE, rollout=rollout, states=[state.value for state in states], limit=limit)
    return [read(row) for row in rows]


async def rollback_pending(tx: Transaction, rollout: str, limit: int) -> list[MemberRow]:
    """Members being rolled back whose attempts have not been told."""
    return [read(row) for row in await tx.all(UNASKED, rollout=rollout, limit=limit)]


async def save(tx: Transaction, rollout: str, member: Member, *, attempt: str = "") -> None:
    """Saves a member; with `attempt`, its newest attempt."""
    await tx.run(
        SAVE,
        rollout=rollout,
        plugin=member.plugin,
        wave=member.wave,
        state=member.state.value,
        switch_number=member.switch_number,
        counted_against=member.counted_against,
        tries=member.tries,
        reason=member.reason[:500],
        attempt=attempt,
    )


async def set_rollback_requested(tx: Transaction, rollout: str, plugin: str, *, asked: bool) -> None:
    """Notes whether the rollback of a member is under way, or has to be asked for."""
    await tx.run(REQUESTED, rollout=rollout, plugin=plugin, asked=asked)


async def states(tx: Transaction, rollout: str) -> dict[str, MemberState]:
    """Every plugin of a rollout and where it stands."""
    return {row.plugin: MemberState(row.state) for row in await tx.all(STATES, rollout=rollout)}


async def roll_back(tx: Transaction, rollout: str, first: int, last: int, reason: str) -> int:
    """Marks everything these waves touched as being rolled back; how many."""
    return await tx.run(TAKE_BACK, rollout=rollout, first=first, last=last, reason=reason[:500])


async def unreserve(tx: Transaction, rollout: str) -> None:
    """Other rollouts may have the plugins."""
    await tx.run(LET_GO, rollout=rollout)


async def take_slot(tx: Transaction, rollout: str, plugin: str, budget: int) -> bool:
    """Takes a free slot for the plugin; False when there is none."""
    return bool(await tx.run(TAKE_SLOT, rollout=rollout, plugin=plugin, budget=budget))


async def free_slots(tx: Transaction, rollout: str) -> int:
    """Frees the slots of plugins that are not in flight any more; how many."""
    return await tx.run(FREE_SLOTS, rollout=rollout)
