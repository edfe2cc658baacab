"""Rows of the timeline.

Rule: positions are given after the commit of a row, by one writer at a time and in order of the facts' times. A
sequence inside the inserting transaction would let a smaller position appear after a larger one was read, and a watcher
would miss it for ever; a position given under the lock is visible before the next one is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from libs.common.database import Transaction
from services.ops.timeline import Entry, Wanted

PLACING = 7_319_010  # an advisory lock nobody else takes
BATCH = 1000

TELL = """
INSERT INTO ops.timeline (event_id, time, fact, plugin, incident, trace_id, payload)
VALUES (CAST(:event AS uuid), :time, :fact, :plugin, :incident, :trace, :payload) ON CONFLICT (event_id) DO NOTHING
"""
LABEL = """
INSERT INTO ops.labels (plugin, label) VALUES (:plugin, :label)
ON CONFLICT (plugin) DO UPDATE SET label = excluded.label WHERE ops.labels.label <> excluded.label
"""
LOCK = "SELECT pg_advisory_xact_lock(:key)"
PLACE = """
WITH unplaced AS (
    SELECT event_id, row_number() OVER (ORDER BY time, event_id) AS number FROM ops.timeline
    WHERE position IS NULL ORDER BY time, event_id LIMIT :batch)
UPDATE ops.timeline t SET position = (SELECT coalesce(max(position), 0) FROM ops.timeline) + unplaced.number
FROM unplaced WHERE t.event_id = unplaced.event_id
"""
UNPLACED = "SELECT 1 FROM ops.timeline WHERE position IS NULL LIMIT 1"
LAST = "SELECT coalesce(max(position), 0) FROM ops.timeline"
COLUMNS = "t.position, t.fact, t.payload, t.trace_id, coalesce(l.label, '') AS label"
FILTERS = {
    "plugin": "t.plugin = :plugin",
    "incident": "t.incident = :incident",
    "facts": "t.fact = ANY(CAST(:facts AS text[]))",
}
PAGE = f"SELECT {COLUMNS} FROM ops.timeline t LEFT JOIN ops.labels l ON l.plugin = t.plugin"
TRACES = """
SELECT trace_id FROM ops.timeline WHERE incident = :incident AND trace_id <> ''
GROUP BY trace_id ORDER BY bool_or(fact = 'incident_opened') DESC, min(time) LIMIT :limit
"""


async def tell(
    tx: Transaction, *, event: str, time: datetime, fact: str, plugin: str, incident: str, trace: str, payload: bytes
) -> None:
    """Writes one fact down, without a position yet; a fact that is there already stays as it is."""
    values = {"event": event, "time": time, "fact": fact, "plugin": plugin, "incident": incident}
    await tx.run(TELL, trace=trace, payload=payload, **values)


async def label(tx: Transaction, plugin: str, name: str) -> None:
    """Remembers what people call a plugin."""
    await tx.run(LABEL, plugin=plugin, label=name)


async def place(tx: Transaction) -> int:
    """Gives positions to at most BATCH rows that have none; how many."""
    if await tx.first(UNPLACED) is None:
        return 0
    await tx.value(LOCK, key=PLACING)
    return await tx.run(PLACE, batch=BATCH)


async def last(tx: Transaction) -> int:
    """The largest position; 0 on an empty timeline."""
    return int(await tx.value(LAST))


async def newest(tx: Transaction, wanted: Wanted, *, before: int, limit: int) -> list[Entry]:
    """Rows below a position, newest first."""
    given, where = _filter(wanted)
    sql = f"{PAGE} WHERE t.position < :before {where} ORDER BY t.position DESC LIMIT :limit"
    return [_entry(row) for row in await tx.all(sql, before=before, limit=limit, **given)]


async def following(tx: Transaction, wanted: Wanted, *, after: int, last: int, limit: int) -> list[Entry]:
    """Rows above a position up to `last`, oldest first."""
    given, where = _filter(wanted)
    sql = f"{PAGE} WHERE t.position > :after AND t.position <= :last {where} ORDER BY t.position LIMIT :limit"
    return [_entry(row) for row in await tx.all(sql, after=after, last=last, limit=limit, **given)]


async def traces(tx: Transaction, incident: str, limit: int = 16) -> list[str]:
    """Traces in which the incident was told, the one that opened it first."""
    return [row.trace_id for row in await tx.all(TRACES, incident=incident, limit=limit)]


def _filter(wanted: Wanted) -> tuple[dict[str, object], str]:
    """Values and conditions of the filters that were given; each combination is a text with a plan of its own."""
    values: dict[str, object] = {"plugin": wanted.plugin, "incident": wanted.incident, "facts": list(wanted.facts)}
    given = {name: value for name, value in values.items() if value}
    return given, "".join(f"AND {FILTERS[name]} " for name in given)


def _entry(row: Sequence[object]) -> Entry:
    position, fact, payload, trace, name = row
    assert isinstance(position, int)
    assert isinstance(payload, bytes)
    return Entry(position, str(fact), payload, str(trace), str(name))
