"""Commands, the agents' words on them, and the final word of each generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.ingest.commands import Command, Kind, Result, Settled, State, Word

COLUMNS = """id, request_id, plugin, attempt, incident, kind, generation, fence, state, deadline, issue_time, release,
    envelope, digest, size, dead_man, config, traceparent, first_write_time, end_time, detail"""
LIVE = "state IN ('pending', 'delivered', 'received')"
HOLD = "SELECT state, merchant FROM ingest.plugins WHERE id = CAST(:plugin AS uuid) FOR UPDATE"
# One statement, since an agent waits for it: numbers, flag, supersession, command, generation. It runs after HOLD, so
# a repeat of the same request sees the command that was made and makes nothing.
ISSUE = f"""
WITH numbers AS (
    UPDATE ingest.plugins p SET last_fence = p.last_fence + 1,
        last_generation = greatest(p.last_generation, u.generation) + CAST(:makes AS integer)
    FROM ingest.pulses u
    WHERE p.id = CAST(:plugin AS uuid) AND u.id = p.id AND p.state = 'active'
      AND NOT EXISTS (SELECT 1 FROM ingest.commands WHERE request_id = :request_id)
    RETURNING p.last_fence, p.last_generation
), expected AS (
    UPDATE ingest.pulses SET waiting = true, version = version + 1
    WHERE id = CAST(:plugin AS uuid) AND EXISTS (SELECT 1 FROM numbers)
), superseded AS (
    UPDATE ingest.commands SET state = 'superseded', end_time = :now, detail = 'a newer command took its place'
    WHERE plugin = CAST(:plugin AS uuid) AND {LIVE} AND EXISTS (SELECT 1 FROM numbers)
), made AS (
    INSERT INTO ingest.commands ({COLUMNS})
    SELECT CAST(:id AS uuid), :request_id, CAST(:plugin AS uuid), :attempt, :incident, :kind,
        CASE WHEN CAST(:generation AS bigint) = 0 THEN last_generation ELSE CAST(:generation AS bigint) END, last_fence,
        :state, :deadline, :issue_time, :release, :envelope, :digest, :size, :dead_man, :config, :traceparent,
        NULL, NULL, ''
    FROM numbers RETURNING generation, fence
), generations AS (
    INSERT INTO ingest.generations (plugin, generation, attempt)
    SELECT CAST(:plugin AS uuid), generation, :attempt FROM made ON CONFLICT DO NOTHING
)
SELECT fence, generation FROM made
"""
FINAL = """
SELECT final FROM ingest.generations WHERE plugin = CAST(:plugin AS uuid) AND generation = :generation FOR UPDATE
"""
SET_FINAL = """
INSERT INTO ingest.generations (plugin, generation, attempt, final, final_time)
VALUES (CAST(:plugin AS uuid), :generation, :attempt, :final, :now)
ON CONFLICT (plugin, generation) DO UPDATE SET final = :final, final_time = :now
"""
BY_REQUEST = f"SELECT {COLUMNS} FROM ingest.commands WHERE request_id = :request_id"
GET = f"SELECT {COLUMNS} FROM ingest.commands WHERE id = CAST(:id AS uuid)"
LOCK = GET + " FOR UPDATE"
LIVE_OF = f"SELECT {COLUMNS} FROM ingest.commands WHERE plugin = CAST(:plugin AS uuid) AND {LIVE} ORDER BY fence"
LIST = f"""
SELECT {COLUMNS} FROM ingest.commands
WHERE (:plugin = '' OR plugin = CAST(nullif(:plugin, '') AS uuid)) AND (:attempt = '' OR attempt = :attempt)
  AND (:after = '' OR id < CAST(nullif(:after, '') AS uuid))
ORDER BY id DESC LIMIT :limit
"""
WRITTEN = """
UPDATE ingest.commands SET first_write_time = coalesce(first_write_time, :at),
    state = CASE WHEN state = 'pending' THEN 'delivered' ELSE state END
WHERE id = CAST(:id AS uuid)
"""
RECEIVED = """
UPDATE ingest.commands SET state = 'received'
WHERE id = CAST(:id AS uuid) AND plugin = CAST(:plugin AS uuid) AND state IN ('pending', 'delivered')
"""
END = f"""
UPDATE ingest.commands SET state = :state, end_time = :now, detail = :detail WHERE id = CAST(:id AS uuid) AND {LIVE}
"""
RESULT = """
INSERT INTO ingest.results (command, word, time, detail, release, digest, unasked)
VALUES (CAST(:command AS uuid), :word, :now, :detail, :release, :digest, :unasked) ON CONFLICT DO NOTHING
"""
OVERDUE = f"SELECT {COLUMNS} FROM ingest.commands WHERE {LIVE} AND deadline <= :now ORDER BY deadline LIMIT :limit"
UNDELIVERED = """
SELECT DISTINCT plugin FROM ingest.commands WHERE state IN ('pending', 'delivered') LIMIT :limit
"""
UNCOMMITTED = """
SELECT EXISTS (SELECT 1 FROM ingest.results r JOIN ingest.commands c ON c.id = r.command
               JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
               WHERE c.plugin = CAST(:plugin AS uuid) AND r.word = 1 AND g.final IS NULL AND c.deadline > :since)
"""
RUNNING = """
SELECT g.generation, c.kind, c.release, c.digest FROM ingest.generations g
JOIN ingest.commands c ON c.attempt = g.attempt AND c.plugin = g.plugin AND c.generation = g.generation
JOIN ingest.results r ON r.command = c.id AND r.word = 1
WHERE g.plugin = CAST(:plugin AS uuid) AND g.final IS DISTINCT FROM 3 AND c.kind IN (1, 3, 4)
ORDER BY g.generation DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A generation that was switched to, by which kind of command, with its release and digest."""

    generation: int
    kind: Kind
    release: str
    digest: str


async def hold(tx: Transaction, plugin: str) -> tuple[str, str] | None:
    """State and merchant of a plugin whose commands nobody else issues until the commit."""
    row = await tx.first(HOLD, plugin=plugin)
    return None if row is None else (row.state, row.merchant)


async def issue(tx: Transaction, command: Command, *, makes: bool) -> Command | None:
    """Saves a command with the next fence (and generation, if it makes one), and supersedes every live one before it.

    None when its request made one before, or the plugin is not active.
    """
    values = {name: getattr(command, name) for name in _PLAIN if name != "fence"}
    own = {"kind": int(command.kind), "state": str(command.state), "makes": int(makes), "now": tx.now}
    row = await tx.first(ISSUE, **values, **own)
    return None if row is None else replace(command, fence=row.fence, generation=row.generation)


async def by_request(tx: Transaction, request_id: str) -> Command | None:
    """The command that was made for a request."""
    return _one(await tx.first(BY_REQUEST, request_id=request_id))


async def get(tx: Transaction, id_: str) -> Command | None:
    """One command."""
    return _one(await tx.first(GET, id=id_))


async def lock(tx: Transaction, id_: str) -> Command | None:
    """One command, locked until the commit."""
    return _one(await tx.first(LOCK, id=id_))


async def live_of(tx: Transaction, plugin: str) -> list[Command]:
    """Commands a plugin still has to hear or answer, oldest first."""
    return [command(row) for row in await tx.all(LIVE_OF, plugin=plugin)]


async def page(tx: Transaction, filters: dict[str, Any], after: str, limit: int) -> list[Command]:
    """Commands newest first."""
    return [command(row) for row in await tx.all(LIST, after=after, limit=limit, **filters)]


async def written(tx: Transaction, id_: str, at: datetime) -> None:
    """The command went out; the first time is kept."""
    await tx.run(WRITTEN, id=id_, at=at)


async def received(tx: Transaction, id_: str, plugin: str) -> None:
    """The agent has it."""
    await tx.run(RECEIVED, id=id_, plugin=plugin)


async def end(tx: Transaction, id_: str, state: State, detail: str) -> bool:
    """Ends a live command; False when it had ended."""
    return await tx.run(END, id=id_, state=str(state), detail=detail, now=tx.now) == 1


async def overdue(tx: Transaction, now: datetime, limit: int) -> Sequence[Command]:
    """Live commands whose deadline has passed."""
    return [command(row) for row in await tx.all(OVERDUE, now=now, limit=limit)]


async def undelivered(tx: Transaction, limit: int) -> list[str]:
    """Plugins with commands no receipt came for."""
    return [str(row.plugin) for row in await tx.all(UNDELIVERED, limit=limit)]


async def note_result(tx: Transaction, result: Result) -> bool:
    """Keeps the agent's word; False when it was kept before."""
    values = {"detail": result.detail, "release": result.release, "digest": result.digest, "unasked": result.unasked}
    return await tx.run(RESULT, command=result.command, word=int(result.word), now=tx.now, **values) == 1


async def final_word(tx: Transaction, plugin: str, generation: int) -> Word | None:
    """The final word of a generation so far, locked until the commit."""
    found = await tx.value(FINAL, plugin=plugin, generation=generation)
    return None if found is None else Word(found)


async def settle(tx: Transaction, command: Command, settled: Settled, detail: str) -> None:
    """Writes what a result changed."""
    if settled.state is not None:
        await end(tx, command.id, settled.state, detail)
    if settled.final is not None:
        place = {"plugin": command.plugin, "generation": command.generation, "attempt": command.attempt}
        await tx.run(SET_FINAL, final=int(settled.final), now=tx.now, **place)


async def in_probation(tx: Transaction, plugin: str, since: datetime) -> bool:
    """Whether a plugin has switched and its final word is still to come."""
    return bool(await tx.value(UNCOMMITTED, plugin=plugin, since=since))


async def running(tx: Transaction, plugin: str) -> Running | None:
    """What a plugin said last that it switched to, and did not take back; None when it never switched."""
    row = await tx.first(RUNNING, plugin=plugin)
    return None if row is None else Running(row.generation, Kind(row.kind), row.release, row.digest)


def _one(row: Any | None) -> Command | None:
    return None if row is None else command(row)


def command(row: Any) -> Command:
    """A row as a command."""
    return Command(
        id=str(row.id),
        plugin=str(row.plugin),
        kind=Kind(row.kind),
        state=State(row.state),
        envelope=bytes(row.envelope),
        config=bytes(row.config),
        **{name: getattr(row, name) for name in _SAME},
    )


_SAME = (
    "request_id", "attempt", "incident", "generation", "fence", "deadline", "issue_time", "release", "digest", "size",
    "dead_man", "traceparent", "first_write_time", "end_time", "detail",
)  # fmt: skip
_PLAIN = (
    "id", "request_id", "plugin", "attempt", "incident", "generation", "fence", "deadline", "issue_time", "release",
    "envelope", "digest", "size", "dead_man", "config", "traceparent",
)  # fmt: skip
