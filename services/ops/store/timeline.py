"""Rows of the timeline.

Rule: positions are given after the commit of a row, by one writer at a time and in order of the facts' times. A
sequence inside the inserting transaction would let a smaller position appear after a larger one was read, and a watcher
would miss it for ever; a position given under the lock is visible before the next one is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.database import Transaction
from services.ops.decoded_fact import DecodedFact
from services.ops.timeline import TimelineEntry, TimelineFilter

PLACING = 7_319_010  # an advisory lock nobody else takes
BATCH = 1000
END = 2**62  # above every position

INSERT = """
INSERT INTO ops.timeline (event_id, time, fact, plugin, merchant, incident, trace_id, payload)
VALUES (CAST(:event AS uuid), :time, :fact, :plugin, :merchant, :incident, :trace, :payload)
ON CONFLICT (event_id) DO NOTHING
"""
LABEL = """
INSERT INTO ops.labels (plugin, merchant, label) VALUES (:plugin, :merchant, :label)
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


async def insert(tx: Transaction, fact: DecodedFact, trace: str, payload: bytes) -> None:
    """Saves one fact, without a position yet; a fact that is there already stays as it is."""
    about = {"plugin": fact.plugin, "merchant": fact.merchant, "incident": fact.incident}
    await tx.run(INSERT, event=fact.id, time=fact.time, fact=fact.name, trace=trace, payload=payload, **about)


async def save_label(tx: Transaction, plugin: str, merchant: str, label: str) -> None:
    """Saves what people call a plugin."""
    await tx.run(LABEL, plugin=plugin, merchant=merchant, label=label)


async def place(tx: Transaction) -> int:
    """Gives positions to at most BATCH rows that have none; returns how many."""
    if await tx.first(UNPLACED) is None:
        return 0
    await tx.value(LOCK, key=PLACING)
    return await tx.run(PLACE, batch=BATCH)


async def last(tx: Transaction) -> int:
    """The largest position; 0 on an empty timeline."""
    return int(await tx.value(LAST))


async def newest(tx: Transaction, wanted: TimelineFilter, *, before: int, limit: int) -> list[TimelineEntry]:
    """Rows below a position, newest first."""
    values, where = _conditions(wanted)
    sql = f"{PAGE} WHERE t.position < :before {where} ORDER BY t.position DESC LIMIT :limit"
    return [_entry(row) for row in await tx.all(sql, before=before, limit=limit, **values)]


async def following(
    tx: Transaction, wanted: TimelineFilter, *, after: int, last: int, limit: int
) -> list[TimelineEntry]:
    """Rows above a position up to `last`, oldest first."""
    values, where = _conditions(wanted)
    sql = f"{PAGE} WHERE t.position > :after AND t.position <= :last {where} ORDER BY t.position LIMIT :limit"
    return [_entry(row) for row in await tx.all(sql, after=after, last=last, limit=limit, **values)]


async def traces(tx: Transaction, incident: str, limit: int = 16) -> list[str]:
    """Traces in which facts of the incident were recorded, the one that opened it first."""
    return [row.trace_id for row in await tx.all(TRACES, incident=incident, limit=limit)]


def _conditions(wanted: TimelineFilter) -> tuple[dict[str, object], str]:
    """Values and conditions of the filters that were given; each combination is a text with a plan of its own."""
    values: dict[str, object] = {"plugin": wanted.plugin, "incident": wanted.incident, "facts": list(wanted.facts)}
    values = {name: value for name, value in values.items() if value}
    return values, "".join(f"AND {FILTERS[name]} " for name in values)


def _entry(row: Sequence[object]) -> TimelineEntry:
    position, fact, payload, trace, name = row
    assert isinstance(position, int)
    assert isinstance(payload, bytes)
    return TimelineEntry(position, str(fact), payload, str(trace), str(name))
