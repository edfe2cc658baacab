"""Statements that merge reports and split them again; locked in the order in which reports are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from libs.common.database import Transaction

LOCK = """
SELECT CAST(r.id AS text) AS id, r.plugin, r.merchant, r.fingerprint, r.state, r.type, r.severity, r.occurrences,
    coalesce(CAST(r.merged_into AS text), '') AS merged_into, r.task, r.strategy, r.traceparent
FROM queue.reports r WHERE r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.plugin, r.fingerprint FOR UPDATE
"""
MERGED_INTO = """
SELECT CAST(id AS text) AS id FROM queue.reports WHERE merged_into = CAST(:report AS uuid)
"""
# What was merged into a report that is merged itself goes along, and leaves it with its own occurrences.
TOTALS = """
SELECT CAST(m.report AS text) AS report, CAST(sum(m.occurrences + r.occurrences) AS bigint) AS occurrences
FROM queue.merged_kinds m JOIN queue.reports r ON r.plugin = m.plugin AND r.fingerprint = m.fingerprint
WHERE m.report = ANY(CAST(:ids AS uuid[])) AND NOT m.overflow GROUP BY m.report
"""
GO_ALONG = """
WITH kinds AS (
    UPDATE queue.merged_kinds SET report = CAST(:into AS uuid)
    WHERE report = ANY(CAST(:ids AS uuid[])) AND NOT overflow)
UPDATE queue.reports SET merged_into = CAST(:into AS uuid) WHERE merged_into = ANY(CAST(:ids AS uuid[]))
"""
MERGE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:along AS bigint[])) AS g (id, along)),
kinds AS (
    INSERT INTO queue.merged_kinds (plugin, fingerprint, merchant, report, overflow, previous_state, counter,
        counter_value, occurrences, type, message, release, last_seen_time, create_time)
    SELECT r.plugin, r.fingerprint, r.merchant, CAST(:into AS uuid), false, r.state, r.counter, r.counter_value, 0,
        d.type, left(d.message, 500), r.release, r.last_seen_time, :now
    FROM given g JOIN queue.reports r ON r.id = g.id JOIN queue.report_details d ON d.report = r.id
    ON CONFLICT (plugin, fingerprint) DO UPDATE SET report = EXCLUDED.report, overflow = false,
        previous_state = EXCLUDED.previous_state, counter = EXCLUDED.counter,
        counter_value = EXCLUDED.counter_value, occurrences = 0)
UPDATE queue.reports r SET state = 'closed', merged_into = CAST(:into AS uuid), escalated = false, triage_time = NULL,
    watch_end_time = NULL, awaiting_approval = '', occurrences = r.occurrences - g.along, reason = :reason,
    previous_state = r.state
FROM given g WHERE r.id = g.id
RETURNING r.id, r.occurrences, r.first_seen_time, r.last_seen_time
"""
GROW = """
UPDATE queue.reports SET occurrences = occurrences + :occurrences,
    first_seen_time = least(first_seen_time, :first_seen), last_seen_time = greatest(last_seen_time, :last_seen)
WHERE id = CAST(:id AS uuid)
"""
REOPEN = """
UPDATE queue.reports SET state = 'new', triage_time = :now, open_time = :now, tried_strategies = '{}', reason = :reason
WHERE id = CAST(:id AS uuid)
"""
KINDS = """
SELECT plugin, fingerprint, previous_state, occurrences FROM queue.merged_kinds
WHERE (plugin, fingerprint) IN (
    SELECT plugin, fingerprint FROM queue.reports WHERE id = ANY(CAST(:ids AS uuid[]))) AND NOT overflow
ORDER BY plugin, fingerprint FOR UPDATE
"""
SPLIT = """
WITH given AS MATERIALIZED (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[])) AS g (id, state)),
gone AS (
    DELETE FROM queue.merged_kinds m USING given g, queue.reports r
    WHERE r.id = g.id AND m.plugin = r.plugin AND m.fingerprint = r.fingerprint AND NOT m.overflow
    RETURNING g.id, g.state, m.counter, m.counter_value, m.occurrences, m.release, m.last_seen_time)
UPDATE queue.reports r SET state = g.state, merged_into = NULL, split = true, counter = g.counter,
    counter_value = g.counter_value, occurrences = r.occurrences + g.occurrences,
    last_seen_time = greatest(r.last_seen_time, g.last_seen_time), release = g.release, reason = :reason,
    triage_time = CASE WHEN g.state = 'new' THEN CAST(:now AS timestamptz) END,
    open_time = CASE WHEN g.state = 'new' THEN CAST(:now AS timestamptz) ELSE r.open_time END
FROM gone g WHERE r.id = g.id
RETURNING CAST(r.id AS text) AS id, r.occurrences
"""
SHRINK = """
UPDATE queue.reports SET occurrences = greatest(1, occurrences - :occurrences) WHERE id = CAST(:id AS uuid)
"""
CANDIDATES = """
SELECT CAST(r.id AS text) AS id, r.plugin, d.type, d.grouping, left(d.message, 500) AS message, r.occurrences
FROM queue.reports r JOIN queue.report_details d ON d.report = r.id
WHERE r.last_seen_time > :since AND r.merged_into IS NULL AND NOT r.split AND r.fingerprint <> :overflow
  AND r.state <> 'closed' AND (:plugin = '' OR r.plugin = :plugin)
ORDER BY r.last_seen_time DESC, r.id DESC LIMIT :limit
"""


async def lock(tx: Transaction, reports: Sequence[str]) -> dict[str, Any]:
    """Reports by id, locked until the commit."""
    return {row.id: row for row in await tx.all(LOCK, ids=list(reports))}


async def merged_into(tx: Transaction, report: str) -> list[str]:
    """The reports that are merged into one."""
    return [row.id for row in await tx.all(MERGED_INTO, report=report)]


async def merge(tx: Transaction, reports: Sequence[str], into: str, reason: str) -> None:
    """Merges reports, and what was merged into them, into another."""
    along = {row.report: row.occurrences for row in await tx.all(TOTALS, ids=list(reports))}
    await tx.run(GO_ALONG, ids=list(reports), into=into)
    values = {"ids": list(reports), "along": [along.get(report, 0) for report in reports]}
    rows = await tx.all(MERGE, into=into, now=tx.now, reason=reason, **values)
    await tx.run(
        GROW,
        id=into,
        occurrences=sum(row.occurrences for row in rows) + sum(along.values()),
        first_seen=min(row.first_seen_time for row in rows),
        last_seen=max(row.last_seen_time for row in rows),
    )


async def reopen(tx: Transaction, report: str, reason: str) -> None:
    """Has a report that was thought over looked at again."""
    await tx.run(REOPEN, id=report, now=tx.now, reason=reason)


async def kinds(tx: Transaction, reports: Sequence[str]) -> dict[tuple[str, str], Any]:
    """What merged reports were, and what they counted since: by kind, locked until the commit."""
    return {(row.plugin, row.fingerprint): row for row in await tx.all(KINDS, ids=list(reports))}


async def split(tx: Transaction, states: Mapping[str, str], into: str, reason: str) -> None:
    """Takes merges back: each report gets a state and what it counted, and the other loses that."""
    values = {"ids": list(states), "states": list(states.values())}
    rows = await tx.all(SPLIT, now=tx.now, reason=reason, **values)
    await tx.run(SHRINK, id=into, occurrences=sum(row.occurrences for row in rows))


async def candidates(tx: Transaction, plugin: str, since: Any, overflow: str, limit: int) -> Sequence[Any]:
    """Reports that may be like others, last seen first."""
    return await tx.all(CANDIDATES, plugin=plugin, since=since, overflow=overflow, limit=limit)
