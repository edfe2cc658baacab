"""Rows of deduplication keys: with which message the same news is counted, how often, and when that is told in sum.

Rule: a key lives for the repeat window, and as long as the incident it is about has not ended. Keys that ask about
incidents live on with everything that is heard of them, and are told in sum before they go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.notify.model import Notice
from services.ops.notify.summaries import Repeats
from services.ops.severity import Severity

# The incident a key is about has not ended.
STANDS = (
    "EXISTS (SELECT FROM ops.incidents i WHERE i.incident = k.incident AND k.incident <> '' AND i.end_time IS NULL)"
)
PAIRS = "(route, key) IN (SELECT * FROM unnest(CAST(:routes AS text[]), CAST(:keys AS text[])))"
KEYS = f"""
SELECT route, key, notification FROM ops.notification_dedup_keys k
WHERE {PAIRS} AND (expire_time > :now OR {STANDS})
"""
SAVE_KEYS = """
INSERT INTO ops.notification_dedup_keys (route, key, notification, incident, tell_time, expire_time)
SELECT route, key, notification, incident, :now, :expire_time
FROM unnest(CAST(:routes AS text[]), CAST(:keys AS text[]), CAST(:ids AS uuid[]), CAST(:incidents AS text[]))
    AS k(route, key, notification, incident)
ON CONFLICT (route, key) DO UPDATE SET notification = excluded.notification, incident = excluded.incident,
    tell_time = excluded.tell_time, expire_time = excluded.expire_time, repeats = 0, summary_time = NULL
"""
COUNT_REPEATS = """
UPDATE ops.notifications n SET repeats = repeats + again.times
FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS integer[])) AS again(id, times) WHERE n.id = again.id
"""
ADD_REPEATS = """
UPDATE ops.notification_dedup_keys k SET repeats = k.repeats + again.times, incident = again.incident,
    last_event = again.event, last_time = again.time, expire_time = greatest(k.expire_time, :expire_time),
    summary_time = coalesce(k.summary_time, :summary_time)
FROM unnest(CAST(:routes AS text[]), CAST(:keys AS text[]), CAST(:times AS integer[]), CAST(:incidents AS text[]),
            CAST(:events AS text[]), CAST(:at AS timestamptz[])) AS again(route, key, times, incident, event, time)
WHERE k.route = again.route AND k.key = again.key
"""
# A key ends with or without a mark for what is critical.
EXTEND = """
UPDATE ops.notification_dedup_keys k SET expire_time = greatest(k.expire_time, :expire_time),
    summary_time = CASE WHEN ended.calm AND k.repeats > 0 THEN :now ELSE k.summary_time END
FROM unnest(CAST(:keys AS text[]), CAST(:calm AS boolean[])) AS ended(key, calm)
WHERE k.key IN (ended.key, ended.key || '!')
"""
DUE = f"""
SELECT k.route, k.key, k.repeats, k.tell_time, k.last_time, k.last_event, k.incident, k.expire_time <= :now AS settled,
       coalesce(i.plugin, '') AS plugin, coalesce(i.merchant, '') AS merchant, coalesce(l.label, '') AS label,
       coalesce(i.type, '') AS type, coalesce(i.severity, 1) AS severity, NOT {STANDS} AS ended
FROM ops.notification_dedup_keys k
LEFT JOIN ops.incidents i ON i.incident = k.incident AND k.incident <> ''
LEFT JOIN ops.labels l ON l.plugin = i.plugin
WHERE k.repeats > 0 AND least(k.summary_time, k.expire_time) <= :now
ORDER BY least(k.summary_time, k.expire_time) LIMIT :limit
"""
ANY_DUE = """
SELECT 1 FROM ops.notification_dedup_keys WHERE repeats > 0 AND least(summary_time, expire_time) <= :now LIMIT 1
"""
SUMMARIZED = f"""
UPDATE ops.notification_dedup_keys SET repeats = 0, summary_time = NULL, tell_time = :now WHERE {PAIRS}
"""
# Whom the end of an incident had spared is asked again, unless nobody is left to ask.
ASK_AGAIN = """
UPDATE ops.notifications SET
    act_by_time = CAST(:now AS timestamptz) + make_interval(secs => (CAST(:within AS double precision[]))[step + 1]),
    detail = 'it came back; step ' || (step + 1) || ' has not answered yet'
WHERE id = ANY(CAST(:ids AS uuid[])) AND state IN ('sending', 'sent', 'failed') AND act_by_time IS NULL
  AND acknowledge_time IS NULL AND step >= 0 AND step + 1 < cardinality(CAST(:within AS double precision[]))
"""
DELETE = f"""
DELETE FROM ops.notification_dedup_keys WHERE (route, key) IN (
    SELECT route, key FROM ops.notification_dedup_keys k WHERE expire_time < :before AND repeats = 0 AND NOT {STANDS}
    LIMIT :batch FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class IncidentEnd:
    """That an incident ended, by the key of what asks about it; `calm`: it was flapping and that is over."""

    key: str
    calm: bool


async def notifications_of(tx: Transaction, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The notifications with which pairs of route and key are counted."""
    listed = list(pairs)
    if not listed:
        return {}
    rows = await tx.all(KEYS, now=tx.now, **_pairs(listed))
    return {(row.route, row.key): str(row.notification) for row in rows}


async def save_keys(
    tx: Transaction, keys: Mapping[tuple[str, str], str], incidents: Sequence[str], expire_time: datetime
) -> None:
    """Saves which notification a key belongs to, and the incident it is about, for the repeat window."""
    if keys:
        listed = {"ids": list(keys.values()), "incidents": list(incidents)}
        await tx.run(SAVE_KEYS, now=tx.now, expire_time=expire_time, **listed, **_pairs(keys))


async def count(tx: Transaction, times: Mapping[str, int]) -> None:
    """Counts what happened again with the notification it repeats."""
    if times:
        await tx.run(COUNT_REPEATS, ids=list(times), times=list(times.values()))


async def add(
    tx: Transaction, again: Mapping[tuple[str, str], Sequence[Notice]], window: timedelta, interval: timedelta
) -> None:
    """What asks about incidents and repeats: it is told in sum."""
    if not again:
        return
    last = [max(notices, key=lambda notice: (notice.time, notice.event)) for notices in again.values()]
    await tx.run(
        ADD_REPEATS,
        times=[len(notices) for notices in again.values()],
        incidents=[notice.incident for notice in last],
        events=[notice.event for notice in last],
        at=[notice.time for notice in last],
        expire_time=tx.now + window,
        summary_time=tx.now + interval,
        **_pairs(again),
    )


async def extend(tx: Transaction, ends: Sequence[IncidentEnd], window: timedelta) -> None:
    """Incidents ended: the same again within the window is a repeat; a flapping one that is calm is told in sum now."""
    if ends:
        # Of several ends of one key the last counts.
        last = {end.key: end.calm for end in ends}
        await tx.run(EXTEND, keys=list(last), calm=list(last.values()), now=tx.now, expire_time=tx.now + window)


async def any_due(tx: Transaction) -> bool:
    """Whether anything is to be told in sum."""
    return await tx.first(ANY_DUE, now=tx.now) is not None


async def due(tx: Transaction, limit: int) -> list[tuple[str, Repeats]]:
    """What is to be told in sum now, with its route."""
    return [(row.route, _repeats(row)) for row in await tx.all(DUE, now=tx.now, limit=limit)]


async def summarized(tx: Transaction, pairs: Iterable[tuple[str, str]]) -> None:
    """These were told in sum; what comes from now on is counted anew."""
    await tx.run(SUMMARIZED, now=tx.now, **_pairs(pairs))


async def ask_again(tx: Transaction, notifications: Iterable[str], within: Sequence[timedelta]) -> None:
    """Has somebody answer these notifications, in as long as each step of their route has."""
    ids = sorted(set(notifications))
    if ids:
        await tx.run(ASK_AGAIN, ids=ids, now=tx.now, within=[each.total_seconds() for each in within])


async def delete_before(tx: Transaction, before: datetime, batch: int) -> int:
    """Removes up to `batch` keys that repeat nothing any more; how many."""
    return await tx.run(DELETE, before=before, batch=batch)


def _pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    listed = list(pairs)
    return {"routes": [route for route, _ in listed], "keys": [key for _, key in listed]}


def _repeats(row: Any) -> Repeats:
    same = ("key", "last_time", "last_event", "incident", "plugin", "merchant", "label", "type", "ended", "settled")
    return Repeats(
        times=row.repeats,
        told_time=row.tell_time,
        severity=Severity(row.severity or Severity.LOW),
        **{name: getattr(row, name) for name in same},
    )
