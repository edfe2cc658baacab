"""Rows of merged kinds: what people merged into another report, and what was beyond the bound of new kinds.

Rule: a merged kind has counters as a report has them; what they grow by is returned and goes to the report. Whoever
counts merged kinds locks the reports first, in the order in which reports are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from services.queue.kinds import Kind, KnownKind
from services.queue.store.columns import columns
from services.queue.store.reports import Occurrence

HOUR = timedelta(hours=1)
# Samples that one report for too many kinds keeps; what it counted stays in its figure.
MOST_SAMPLES = 1000
LONGEST_SAMPLE = 500
_KINDS = "unnest(CAST(:plugin AS text[]), CAST(:fingerprint AS text[])) AS g (plugin, fingerprint)"
LOOK = f"""
SELECT g.plugin, g.fingerprint, CAST(r.id AS text) AS own, m.overflow, m.counter, m.counter_value,
    CAST(t.id AS text) AS target, t.fingerprint AS target_fingerprint
FROM {_KINDS}
LEFT JOIN queue.reports r ON r.plugin = g.plugin AND r.fingerprint = g.fingerprint
LEFT JOIN queue.merged_kinds m ON m.plugin = g.plugin AND m.fingerprint = g.fingerprint
LEFT JOIN queue.reports t ON t.id = m.report
"""
LOCK_PLUGINS = """
SELECT count(pg_advisory_xact_lock(hashtextextended('queue kinds ' || plugin, 0)))
FROM unnest(CAST(:plugins AS text[])) AS g (plugin)
"""
CREATED = """
SELECT g.plugin, (SELECT count(*) FROM (
    SELECT 1 FROM queue.reports r
    WHERE r.plugin = g.plugin AND r.create_time > :since AND r.fingerprint <> :overflow LIMIT :most) AS found) AS number
FROM unnest(CAST(:plugins AS text[])) AS g (plugin)
"""
LOCK_REPORTS = f"""
SELECT r.id FROM queue.reports r JOIN {_KINDS} ON r.plugin = g.plugin AND r.fingerprint = g.fingerprint
ORDER BY r.plugin, r.fingerprint FOR UPDATE OF r
"""
ADD = """
INSERT INTO queue.merged_kinds (plugin, fingerprint, merchant, report, overflow, previous_state, counter, counter_value,
    occurrences, type, message, release, last_seen_time, create_time)
SELECT plugin, fingerprint, merchant, report, true, '', counter, 0, 0, type, message, release, seen, :now
FROM unnest(CAST(:plugin AS text[]), CAST(:fingerprint AS text[]), CAST(:merchant AS text[]),
    CAST(:report AS uuid[]), CAST(:counter AS text[]), CAST(:type AS text[]), CAST(:message AS text[]),
    CAST(:release AS text[]), CAST(:seen AS timestamptz[]))
    AS g (plugin, fingerprint, merchant, report, counter, type, message, release, seen)
ON CONFLICT (plugin, fingerprint) DO NOTHING
"""
# Mirrors recurrence.increase, as the upsert of reports does.
COUNT = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:plugin AS text[]), CAST(:fingerprint AS text[]), CAST(:counter AS text[]),
        CAST(:value AS bigint[]), CAST(:type AS text[]), CAST(:message AS text[]), CAST(:release AS text[]),
        CAST(:seen AS timestamptz[])) AS g (plugin, fingerprint, counter, value, type, message, release, seen)),
locked AS MATERIALIZED (
    SELECT m.plugin, m.fingerprint, m.counter, m.counter_value FROM queue.merged_kinds m
    JOIN given g ON g.plugin = m.plugin AND g.fingerprint = m.fingerprint
    ORDER BY m.plugin, m.fingerprint FOR UPDATE OF m),
grown AS MATERIALIZED (
    SELECT g.*, CASE WHEN g.counter <> '' AND g.counter = l.counter THEN greatest(0, g.value - l.counter_value)
        ELSE g.value END AS increase
    FROM given g JOIN locked l ON l.plugin = g.plugin AND l.fingerprint = g.fingerprint)
UPDATE queue.merged_kinds m SET
    occurrences = m.occurrences + g.increase,
    counter_value = CASE WHEN g.counter = '' THEN m.counter_value
        WHEN g.counter = m.counter THEN greatest(m.counter_value, g.value) ELSE g.value END,
    counter = CASE WHEN g.counter = '' THEN m.counter ELSE g.counter END,
    type = CASE WHEN g.increase > 0 THEN g.type ELSE m.type END,
    message = CASE WHEN g.increase > 0 THEN g.message ELSE m.message END,
    release = CASE WHEN g.increase > 0 AND g.release <> '' THEN g.release ELSE m.release END,
    last_seen_time = greatest(m.last_seen_time, g.seen)
FROM grown g WHERE m.plugin = g.plugin AND m.fingerprint = g.fingerprint
RETURNING m.plugin, m.fingerprint, g.increase
"""
FORGET = f"""
DELETE FROM queue.merged_kinds m USING {_KINDS}
WHERE m.plugin = g.plugin AND m.fingerprint = g.fingerprint AND m.overflow
"""
PRUNE = """
DELETE FROM queue.merged_kinds WHERE (plugin, fingerprint) IN (
    SELECT plugin, fingerprint FROM queue.merged_kinds WHERE report = CAST(:report AS uuid) AND overflow
    ORDER BY last_seen_time DESC OFFSET :most)
"""
OF_REPORT = """
SELECT m.fingerprint, m.overflow, m.type, m.message, m.release, m.last_seen_time,
    CAST(r.id AS text) AS report, m.occurrences + coalesce(r.occurrences, 0) AS occurrences
FROM queue.merged_kinds m
LEFT JOIN queue.reports r ON r.plugin = m.plugin AND r.fingerprint = m.fingerprint AND NOT m.overflow
WHERE m.report = CAST(:report AS uuid) ORDER BY m.last_seen_time DESC, m.fingerprint LIMIT :limit
"""


@dataclass(frozen=True)
class Target:
    """The report that a merged kind is counted in; `fresh` when it is made with it."""

    report: str
    fingerprint: str
    fresh: bool = False


async def look(tx: Transaction, kinds: Sequence[Kind]) -> tuple[dict[Kind, KnownKind], dict[Kind, Target]]:
    """What is known of kinds, and where those that are merged are counted."""
    known: dict[Kind, KnownKind] = {}
    targets: dict[Kind, Target] = {}
    for row in await tx.all(LOOK, **_columns(kinds)):
        kind = (row.plugin, row.fingerprint)
        merged = row.target is not None
        overflow = bool(merged and row.overflow)
        known[kind] = KnownKind(
            row.own is not None, merged and not overflow, overflow, row.counter or "", row.counter_value or 0
        )
        if merged:
            targets[kind] = Target(row.target, row.target_fingerprint)
    return known, targets


async def lock_plugins(tx: Transaction, plugins: Sequence[str]) -> None:
    """Lets one transaction at a time give new kinds of these plugins their places."""
    await tx.run(LOCK_PLUGINS, plugins=sorted(set(plugins)))


async def created(tx: Transaction, plugins: Sequence[str], overflow: str, most: int) -> dict[str, int]:
    """How many reports were made for new kinds of each plugin within the last hour, counted up to `most`."""
    rows = await tx.all(CREATED, plugins=sorted(set(plugins)), since=tx.now - HOUR, overflow=overflow, most=most)
    return {row.plugin: row.number for row in rows}


async def report_ids(tx: Transaction, kinds: Sequence[Kind]) -> dict[Kind, str]:
    """The reports that kinds have of their own."""
    rows = await tx.all(LOOK, **_columns(kinds))
    return {(row.plugin, row.fingerprint): row.own for row in rows if row.own is not None}


async def lock_reports(tx: Transaction, kinds: Sequence[Kind]) -> None:
    """Locks the reports of these kinds, in the order in which reports are counted."""
    await tx.all(LOCK_REPORTS, **_columns(kinds))


async def add_overflow(tx: Transaction, occurrences: Sequence[Occurrence], reports: Mapping[str, str]) -> None:
    """Begins to count kinds among too many kinds; `reports` are the reports for that, by plugin."""
    values = _samples(occurrences) | columns(occurrences, "plugin fingerprint merchant counter type release seen")
    await tx.run(ADD, report=[reports[one.plugin] for one in occurrences], now=tx.now, **values)


async def count(tx: Transaction, occurrences: Sequence[Occurrence]) -> dict[Kind, int]:
    """Counts occurrences of merged kinds, each of another kind; what each of them grew by."""
    values = _samples(occurrences) | columns(occurrences, "plugin fingerprint counter value type release seen")
    return {(row.plugin, row.fingerprint): row.increase for row in await tx.all(COUNT, **values)}


async def forget(tx: Transaction, kinds: Sequence[Kind]) -> None:
    """These have a report of their own now, and are no sample of too many kinds any more."""
    await tx.run(FORGET, **_columns(kinds))


async def prune(tx: Transaction, report: str) -> None:
    """Keeps the newest samples of a report for too many kinds."""
    await tx.run(PRUNE, report=report, most=MOST_SAMPLES)


async def of_report(tx: Transaction, report: str, limit: int) -> Sequence[Any]:
    """The kinds that are counted in a report besides its own, last seen first."""
    return await tx.all(OF_REPORT, report=report, limit=limit)


def _columns(kinds: Sequence[Kind]) -> dict[str, list[str]]:
    return {"plugin": [plugin for plugin, _ in kinds], "fingerprint": [fingerprint for _, fingerprint in kinds]}


def _samples(occurrences: Sequence[Occurrence]) -> dict[str, Any]:
    return {"message": [one.message[:LONGEST_SAMPLE] for one in occurrences]}
