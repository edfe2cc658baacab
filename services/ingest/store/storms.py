"""Storms: rows and dataclasses, and the counts of incidents that begin and end them.

Rule: a pair (package, type) is looked at under its own lock, the last one taken in a transaction, so that two openings
at once never overlook each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.ingest.store import after
from services.ingest.storm import Counts, Rules, State, Storm, count_from

COLUMNS = """id, package, type, state, start_time, count_from_time, cooldown_time, end_time, peak, plugins, fleet,
    reason, end_reason, ended_by, traceparent"""
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('prunella storm of ' || :type || ' in ' || :package, 0))"
LATEST = f"""
SELECT {COLUMNS} FROM ingest.storms WHERE package = :package AND type = :type ORDER BY start_time DESC, id DESC LIMIT 1
"""
GET = f"SELECT {COLUMNS} FROM ingest.storms WHERE id = CAST(:id AS uuid)"
ONGOING = f"SELECT {COLUMNS} FROM ingest.storms WHERE state = 'ongoing' ORDER BY id LIMIT :limit"
LIST = f"""
SELECT {COLUMNS} FROM ingest.storms
WHERE (:package = '' OR package = :package) AND (:state = '' OR state = :state)
  AND (:after = '' OR id < CAST(nullif(:after, '') AS uuid))
ORDER BY id DESC LIMIT :limit
"""
INSERT = f"""
INSERT INTO ingest.storms ({COLUMNS})
VALUES (CAST(:id AS uuid), :package, :type, :state, :start_time, :count_from_time, NULL, NULL, :peak, :plugins,
        :fleet, :reason, '', '', :traceparent)
"""
SAVE = """
UPDATE ingest.storms SET state = :state, cooldown_time = :cooldown_time, end_time = :end_time, peak = :peak,
    ended_by = :ended_by, end_reason = :end_reason
WHERE id = CAST(:id AS uuid)
"""
OF_PAIR = """
SELECT count(DISTINCT i.plugin) FROM ingest.incidents i JOIN ingest.plugins p ON p.id = i.plugin
WHERE i.package = :package AND i.type = :type AND p.state = 'active'
"""
# What came back counts like what opened.
OPENED = OF_PAIR + " AND coalesce(i.reopen_time, i.open_time) > :since"
AFFECTED = OF_PAIR + " AND i.state IN ('open', 'in_progress', 'escalated', 'flapping') AND i.calm_time IS NULL"
FLEET = """
SELECT count(*) FROM (
    SELECT 1 FROM ingest.plugins WHERE package = :package AND state = 'active' LIMIT CAST(:most AS bigint)
) AS counted
"""
WHOLE_FLEET = 10_000_000


@dataclass(frozen=True, slots=True)
class StoredStorm:
    """A storm as stored: the heart's pair, and what it shows."""

    id: str
    storm: Storm
    plugins: int
    fleet: int
    reason: str
    traceparent: str
    end_reason: str = ""


async def lock(tx: Transaction, package: str, type_: str) -> None:
    """Keeps everybody else from looking at the pair until the commit."""
    await tx.run(LOCK, package=package, type=type_)


async def latest(tx: Transaction, package: str, type_: str) -> StoredStorm | None:
    """The newest storm of a pair, ongoing or over."""
    return _one(await tx.first(LATEST, package=package, type=type_))


async def get(tx: Transaction, id_: str) -> StoredStorm | None:
    """One storm."""
    return _one(await tx.first(GET, id=id_))


async def ongoing(tx: Transaction, limit: int) -> list[StoredStorm]:
    """Storms that are not over."""
    return [_row(row) for row in await tx.all(ONGOING, limit=limit)]


async def page(tx: Transaction, filters: dict[str, Any], page: Page) -> Sequence[StoredStorm]:
    """Storms newest first."""
    return [_row(row) for row in await tx.all(LIST, **after(page), **filters)]


async def insert(tx: Transaction, row: StoredStorm) -> None:
    """Saves a storm that begins."""
    own = {name: getattr(row, name) for name in ("id", "plugins", "fleet", "reason", "traceparent")}
    pair = {name: getattr(row.storm, name) for name in ("package", "type", "start_time", "count_from_time", "peak")}
    await tx.run(INSERT, **own, **pair, state=str(row.storm.state))


async def save(tx: Transaction, row: StoredStorm) -> None:
    """Writes what may have changed."""
    storm = row.storm
    changing = {name: getattr(storm, name) for name in ("cooldown_time", "end_time", "peak", "ended_by")}
    await tx.run(SAVE, id=row.id, state=str(storm.state), end_reason=row.end_reason, **changing)


async def counts(tx: Transaction, storm: Storm, now: datetime, rules: Rules) -> Counts:
    """The counts of a pair. Without a storm, no more is counted than is needed to see that there is none."""
    pair = {"package": storm.package, "type": storm.type}
    opened = int(await tx.value(OPENED, **pair, since=count_from(storm, now, rules)))
    over = storm.state is State.OVER
    if over and opened < rules.least:
        return Counts(opened, opened, 0)
    most = opened * 100 // rules.share + 1 if over else WHOLE_FLEET
    fleet = int(await tx.value(FLEET, package=storm.package, most=most))
    if over and opened < rules.begins_at(fleet):
        return Counts(opened, opened, fleet)
    return Counts(opened, int(await tx.value(AFFECTED, **pair)), fleet)


def _one(row: Any | None) -> StoredStorm | None:
    return None if row is None else _row(row)


def _row(row: Any) -> StoredStorm:
    names = ("package", "type", "start_time", "cooldown_time", "end_time", "count_from_time", "peak", "ended_by")
    storm = Storm(state=State(row.state), **{name: getattr(row, name) for name in names})
    return StoredStorm(str(row.id), storm, row.plugins, row.fleet, row.reason, row.traceparent, row.end_reason)
