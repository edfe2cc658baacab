"""Pulses: what changes with every beat, written for many plugins in one statement.

Rule: a write names the version it was computed from; a row that has moved on is not written and not returned, and its
beats are heard again on what it holds now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from libs.common.database import Transaction
from services.ingest.detection import Health
from services.ingest.liveness import Hearing, Quiet
from services.ingest.sense import read
from services.ingest.telemetry import Pulse, calm

# The stored fields of a pulse, in their order.
FIELDS = [name for name in Pulse.__slots__ if name not in {"calm", "traits", "listened", "unsaved"}]
COLUMNS = ", ".join("id" if name == "plugin" else name for name in FIELDS)
HEALTHS = {int(health): health for health in Health}
LOAD = f"SELECT {COLUMNS} FROM ingest.pulses WHERE id = ANY(CAST(:ids AS uuid[]))"
GET = f"SELECT {COLUMNS}, connected FROM ingest.pulses WHERE id = CAST(:id AS uuid)"
LOCK = "SELECT 1 FROM ingest.pulses WHERE id = CAST(:id AS uuid) FOR UPDATE"
INSERT = """
INSERT INTO ingest.pulses (id, heard, release, watch_from) VALUES (CAST(:id AS uuid), :heard, :release, 0)
"""
BEAT = """
UPDATE ingest.pulses p SET
    version = u.version + 1, boots = u.boots, sequence = u.sequence, errors = u.errors, attempts = u.attempts,
    failures = u.failures, signatures = u.signatures, heard = u.heard, beats = u.beats, health = u.health,
    release = u.release, generation = u.generation, digest = u.digest, open_types = u.open_types,
    plain_last = u.plain_last, plain_errors = u.plain_errors, polls = u.polls, away = false, back_by = 0,
    windows = u.windows, sense = coalesce(u.sense, p.sense)
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:versions AS bigint[]), CAST(:boots AS text[]), CAST(:sequences AS bigint[]),
    CAST(:errors AS bigint[]), CAST(:attempts AS bigint[]), CAST(:failures AS bigint[]), CAST(:signatures AS bigint[]),
    CAST(:heard AS double precision[]), CAST(:beats AS bigint[]), CAST(:health AS smallint[]),
    CAST(:releases AS text[]), CAST(:generations AS bigint[]), CAST(:digests AS text[]),
    CAST(:open_types AS integer[]), CAST(:plain_last AS bigint[]), CAST(:plain_errors AS bigint[]),
    CAST(:polls AS boolean[]), CAST(:windows AS bytea[]), CAST(:senses AS bytea[])
) AS u(id, version, boots, sequence, errors, attempts, failures, signatures, heard, beats, health, release, generation,
       digest, open_types, plain_last, plain_errors, polls, windows, sense)
WHERE p.id = u.id AND p.version = u.version AND p.active
RETURNING p.id
"""
CONNECT = f"""
UPDATE ingest.pulses SET epoch = epoch + 1, version = version + 1, connected = true, away = false, back_by = 0
WHERE id = ANY(CAST(:ids AS uuid[])) AND active RETURNING {COLUMNS}
"""
DISCONNECT = """
UPDATE ingest.pulses p SET connected = false
FROM unnest(CAST(:ids AS uuid[]), CAST(:epochs AS bigint[])) AS u(id, epoch)
WHERE p.id = u.id AND p.epoch = u.epoch AND p.connected
"""
GOODBYE = """
UPDATE ingest.pulses SET away = true, back_by = :back_by, version = version + 1
WHERE id = CAST(:id AS uuid) AND epoch = :epoch
"""
END = """
UPDATE ingest.pulses SET active = false, connected = false, epoch = epoch + 1, version = version + 1, open_types = 0
WHERE id = CAST(:id AS uuid) AND active
"""
SWITCHED = """
UPDATE ingest.pulses SET watch_from = :at, plain_errors = plain_last, version = version + 1 WHERE id = CAST(:id AS uuid)
"""
ENDED = """
UPDATE ingest.pulses SET watch_from = heard, plain_errors = plain_last, version = version + 1,
    open_types = open_types & ~CAST(:cleared AS integer) WHERE id = CAST(:id AS uuid)
"""
NOTE = """
UPDATE ingest.pulses SET version = version + 1, open_types = :types,
    plain_errors = CASE WHEN CAST(:ended AS boolean) THEN plain_last ELSE plain_errors END,
    watch_from = CASE WHEN CAST(:ended AS boolean) THEN heard ELSE watch_from END
WHERE id = CAST(:id AS uuid)
"""
RAISE = """
UPDATE ingest.pulses SET open_types = open_types | CAST(:bits AS integer), version = version + 1
WHERE id = CAST(:id AS uuid)
"""
EXPECT = "UPDATE ingest.pulses SET waiting = true, version = version + 1 WHERE id = CAST(:id AS uuid)"
RELAX = """
UPDATE ingest.pulses SET waiting = false, version = version + 1
WHERE id = CAST(:id AS uuid) AND version = :version AND waiting
"""
QUIET = """
SELECT id, heard, polls, away, back_by, open_types FROM ingest.pulses
WHERE active AND heard < :before AND open_types & CAST(:missed AS integer) = 0 AND NOT (away AND back_by = 0)
  AND (NOT away OR back_by < :before) AND (NOT polls OR heard < :polled_before)
ORDER BY heard LIMIT :limit
"""
HEARING = """
INSERT INTO ingest.hearing (replica, since, last) VALUES (:replica, :at, :at)
ON CONFLICT (replica) DO UPDATE SET last = :at,
    since = CASE WHEN ingest.hearing.last < :broken THEN :at ELSE ingest.hearing.since END
"""
HEARINGS = "SELECT since, last FROM ingest.hearing"
FORGET = "DELETE FROM ingest.hearing WHERE last < :before"
PEERS = f"""
SELECT {COLUMNS} FROM ingest.pulses
WHERE id IN (SELECT id FROM ingest.plugins WHERE package = :package AND id <> CAST(:id AS uuid) AND state = 'active'
             ORDER BY id LIMIT :limit)
  AND watch_from < :switch AND heard >= :switch AND active
"""


async def load(tx: Transaction, ids: Iterable[str]) -> dict[str, Pulse]:
    """Pulses by plugin id; unknown ids are left out."""
    rows = await tx.all(LOAD, ids=list(ids))
    return {str(row.id): pulse(row) for row in rows}


async def get(tx: Transaction, plugin: str) -> tuple[Pulse, bool] | None:
    """One pulse and whether a session is noted for it."""
    row = await tx.first(GET, id=plugin)
    return None if row is None else (pulse(row), row.connected)


async def lock(tx: Transaction, plugin: str) -> bool:
    """Keeps beats of a plugin from being written until the commit; False for an unknown plugin."""
    return await tx.first(LOCK, id=plugin) is not None


async def insert(tx: Transaction, plugin: str, release: str) -> None:
    """The pulse of a plugin that has just enrolled and has said nothing yet."""
    await tx.run(INSERT, id=plugin, heard=tx.now.timestamp(), release=release)


async def beat(tx: Transaction, pulses: Sequence[Pulse]) -> set[str]:
    """Writes pulses computed from the version they carry; returns the ids that were still at it."""
    rows = await tx.all(
        BEAT,
        ids=[p.plugin for p in pulses],
        versions=[p.version for p in pulses],
        boots=[",".join(p.boots) for p in pulses],
        sequences=[p.sequence for p in pulses],
        errors=[p.errors for p in pulses],
        attempts=[p.attempts for p in pulses],
        failures=[p.failures for p in pulses],
        signatures=[p.signatures for p in pulses],
        heard=[p.heard for p in pulses],
        beats=[p.beats for p in pulses],
        health=[int(p.health) for p in pulses],
        releases=[p.release for p in pulses],
        generations=[p.generation for p in pulses],
        digests=[p.digest for p in pulses],
        open_types=[p.open_types for p in pulses],
        plain_last=[p.plain_last for p in pulses],
        plain_errors=[p.plain_errors for p in pulses],
        polls=[p.polls for p in pulses],
        windows=[p.windows for p in pulses],
        senses=[p.sense if p.unsaved else None for p in pulses],
    )
    return {str(row[0]) for row in rows}


async def connect(tx: Transaction, plugins: Sequence[str]) -> dict[str, Pulse]:
    """Begins a session under a new epoch for each plugin that may have one."""
    rows = await tx.all(CONNECT, ids=sorted(plugins))
    return {str(row.id): pulse(row) for row in rows}


async def disconnect(tx: Transaction, sessions: Sequence[tuple[str, int]]) -> None:
    """Notes that sessions (plugin, epoch) have ended, unless newer ones began."""
    ended = sorted(sessions)
    await tx.run(DISCONNECT, ids=[plugin for plugin, _ in ended], epochs=[epoch for _, epoch in ended])


async def goodbye(tx: Transaction, plugin: str, epoch: int, back_by: float) -> None:
    """Notes that the plugin left on its own; `back_by` in Unix seconds, 0 when it named no time."""
    await tx.run(GOODBYE, id=plugin, epoch=epoch, back_by=back_by)


async def end(tx: Transaction, plugin: str) -> None:
    """Hears no more beats of a plugin."""
    await tx.run(END, id=plugin)


async def switched(tx: Transaction, plugin: str, at: float) -> None:
    """The plugin runs something else since `at`: the window that was open then belongs to neither."""
    await tx.run(SWITCHED, id=plugin, at=at)


async def ended(tx: Transaction, plugin: str, cleared: int) -> None:
    """Incidents of the types in `cleared` ended: windows count anew from the last beat, so that none is lost."""
    await tx.run(ENDED, id=plugin, cleared=cleared)


async def note_types(tx: Transaction, plugin: str, types: int, *, ended: bool) -> None:
    """These types of incidents are open now; when one ended, windows count anew."""
    await tx.run(NOTE, id=plugin, types=types, ended=ended)


async def raise_types(tx: Transaction, plugin: str, bits: int) -> None:
    """Notes types of incidents that opened without a beat."""
    await tx.run(RAISE, id=plugin, bits=bits)


async def expect(tx: Transaction, plugin: str) -> None:
    """There is a command for the plugin."""
    await tx.run(EXPECT, id=plugin)


async def relax(tx: Transaction, plugin: str, version: int) -> bool:
    """There was nothing for the plugin when its row had this version; False when it has another by now."""
    return await tx.run(RELAX, id=plugin, version=version) == 1


async def quiet(tx: Transaction, before: float, polled_before: float, missed: int, limit: int) -> list[Quiet]:
    """Plugins without a beat since `before` (who polls: `polled_before`) whose silence is not an incident yet.

    Who may be silent for longer is left out here, so that many of them do not keep the others from being looked at.
    """
    rows = await tx.all(QUIET, before=before, polled_before=polled_before, missed=missed, limit=limit)
    return [Quiet(str(row.id), row.heard, row.polls, row.away, row.back_by) for row in rows]


async def hear(tx: Transaction, replica: str, at: float, gap: float) -> list[Hearing]:
    """Notes that a replica hears, and says what all of them noted."""
    await tx.run(HEARING, replica=replica, at=at, broken=at - gap)
    await tx.run(FORGET, before=at - 86_400.0)
    return [Hearing(row.since, row.last) for row in await tx.all(HEARINGS)]


async def peers(tx: Transaction, plugin: str, package: str, switch: float, limit: int) -> list[Pulse]:
    """Other plugins of a package that run what they ran before `switch`, at most `limit`."""
    return [pulse(row) for row in await tx.all(PEERS, id=plugin, package=package, switch=switch, limit=limit)]


def pulse(row: Any) -> Pulse:
    """A row, columns in the order of COLUMNS, as a pulse."""
    made = Pulse(*row[: len(FIELDS)])
    made.plugin = str(made.plugin)
    made.boots = tuple(filter(None, row[4].split(",")))
    made.health = HEALTHS[row[12]]
    made.calm = calm(made.windows)
    made.listened = read(made.sense).at
    return made
