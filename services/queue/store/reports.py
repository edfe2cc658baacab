"""Rows of error reports ⇄ dataclasses: occurrences are counted in one statement.

Rule: a batch is one upsert, whatever is in it. What is long is apart in queue.report_details and written once; what
changes with each occurrence is narrow. `previous_state` says in which state the last occurrence found the report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.queue.recurrence import REOPENS
from services.queue.report import Report
from services.queue.store.columns import columns
from services.queue.store.history import COLUMNS as HISTORY

_GIVEN = """
    CAST(:id AS uuid[]), CAST(:plugin AS text[]), CAST(:merchant AS text[]), CAST(:package AS text[]),
    CAST(:release AS text[]), CAST(:label AS text[]), CAST(:fingerprint AS text[]), CAST(:type AS text[]),
    CAST(:severity AS text[]), CAST(:counter AS text[]), CAST(:value AS bigint[]), CAST(:seen AS timestamptz[]),
    CAST(:reported_time AS timestamptz[]), CAST(:traceparent AS text[]), CAST(:base AS bigint[])
"""
# Mirrors recurrence.increase; the test of the two together keeps them one.
_INCREASE = """(CASE WHEN EXCLUDED.counter <> '' AND EXCLUDED.counter = r.counter
    THEN greatest(0, EXCLUDED.counter_value - r.counter_value) ELSE EXCLUDED.counter_value END)"""
_REOPENED = f"""({_INCREASE} > 0 AND r.state IN ({", ".join(f"'{state}'" for state in REOPENS)})
    AND (EXCLUDED.last_seen_time > coalesce(r.resolve_time, '-infinity')
        -- Our clock was set back since: what comes now comes later.
        OR r.resolve_time > CAST(:now AS timestamptz) + interval '5 seconds'))"""
_REOPENED_STATE = " ".join(f"WHEN '{state}' THEN '{after}'" for state, after in REOPENS.items())
UPSERT = f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest({_GIVEN}) AS g (id, plugin, merchant, package, release, label, fingerprint, type, severity,
        counter, value, seen, reported_time, traceparent, base)),
counted AS (
    INSERT INTO queue.reports AS r (id, plugin, merchant, package, release, label, fingerprint, state, type,
        reported_severity, source, counter, counter_value, occurrences, first_seen_time, last_seen_time,
        reported_time, open_time, triage_time, traceparent, create_time)
    SELECT id, plugin, merchant, package, release, label, fingerprint, 'new', type, severity, :source, counter, value,
        value - base, seen, seen, reported_time, :now, :now, traceparent, :now
    FROM given ORDER BY plugin, fingerprint
    ON CONFLICT ON CONSTRAINT reports_fingerprint DO UPDATE SET
        previous_state = r.state,
        state = CASE WHEN {_REOPENED} THEN CASE r.state {_REOPENED_STATE} END ELSE r.state END,
        triage_time = CASE WHEN {_REOPENED} THEN EXCLUDED.triage_time ELSE r.triage_time END,
        watch_end_time = CASE WHEN {_REOPENED} THEN NULL ELSE r.watch_end_time END,
        open_time = CASE WHEN {_REOPENED} AND r.state <> 'resolved_pending' THEN EXCLUDED.open_time
            ELSE r.open_time END,
        tried_strategies = CASE WHEN NOT {_REOPENED} THEN r.tried_strategies WHEN r.state = 'resolved_pending'
            THEN array_append(r.tried_strategies, r.strategy) ELSE '{{}}' END,
        history_count = r.history_count + CASE WHEN {_REOPENED} AND r.state = 'resolved_pending' THEN 1 ELSE 0 END,
        regressions = r.regressions + CASE WHEN {_REOPENED} THEN 1 ELSE 0 END,
        occurrences = r.occurrences + {_INCREASE},
        last_seen_time = greatest(r.last_seen_time, EXCLUDED.last_seen_time),
        reported_time = coalesce(EXCLUDED.reported_time, r.reported_time),
        release = CASE WHEN {_INCREASE} > 0 AND EXCLUDED.release <> '' THEN EXCLUDED.release ELSE r.release END,
        label = CASE WHEN EXCLUDED.label <> '' THEN EXCLUDED.label ELSE r.label END,
        reported_severity = CASE WHEN EXCLUDED.reported_severity <> '' THEN EXCLUDED.reported_severity
            ELSE r.reported_severity END,
        counter_value = CASE WHEN EXCLUDED.counter = '' THEN r.counter_value
            WHEN EXCLUDED.counter = r.counter THEN greatest(r.counter_value, EXCLUDED.counter_value)
            ELSE EXCLUDED.counter_value END,
        counter = CASE WHEN EXCLUDED.counter = '' THEN r.counter ELSE EXCLUDED.counter END
    RETURNING r.*),
history AS (
    INSERT INTO queue.history ({HISTORY})
    SELECT queue.uuid_v7(:now), id, history_count, merchant, task, strategy, resolved_by, resolution_method, false,
        'RECURRED', '{{}}', '{{}}', 0, :now, 'queue'
    FROM counted WHERE previous_state = 'resolved_pending' AND state = 'in_progress'),
transitions AS (
    SELECT state, 1 AS change FROM counted WHERE state <> previous_state
    UNION ALL SELECT previous_state, -1 FROM counted WHERE state <> previous_state AND previous_state <> ''),
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'report', state, sum(change), 0, 0 FROM transitions GROUP BY state)
SELECT id, plugin, merchant, package, release, fingerprint, state, previous_state, strategy, task,
    traceparent, occurrences
FROM counted
"""
INSERT_DETAILS = """
INSERT INTO queue.report_details (report, merchant, type, module, message, stack, context, grouping)
SELECT id, merchant, type, module, message, stack, CAST(context AS jsonb), string_to_array(grouping, E'\\n')
FROM unnest(CAST(:id AS uuid[]), CAST(:merchant AS text[]), CAST(:type AS text[]), CAST(:module AS text[]),
    CAST(:message AS text[]), CAST(:stack AS text[]), CAST(:context AS text[]), CAST(:grouping AS text[]))
    AS g (id, merchant, type, module, message, stack, context, grouping)
"""
COLUMNS = """r.id, r.plugin, r.merchant, r.package, r.release, r.label, r.fingerprint, r.state, r.type, r.severity,
    r.reported_severity, r.source, r.occurrences, r.regressions, r.first_seen_time, r.last_seen_time, r.reported_time,
    r.open_time, r.triage_time, r.tried_strategies, r.task, r.strategy, r.resolve_time, r.resolved_by,
    r.resolution_method, r.reason, r.traceparent, r.merged_into,
    d.type AS reported_type, d.module, d.message, d.stack, d.context, d.grouping, d.triage"""
FROM = "FROM queue.reports r JOIN queue.report_details d ON d.report = r.id"
GET = f"SELECT {COLUMNS} {FROM} WHERE r.id = CAST(:id AS uuid)"
SOME = f"SELECT {COLUMNS} {FROM} WHERE r.id = ANY(CAST(:ids AS uuid[]))"
_FILTERS = """(:state = '' OR r.state = :state) AND (:type = '' OR r.type = :type)
    AND (:plugin = '' OR r.plugin = :plugin) AND (:fingerprint = '' OR r.fingerprint = :fingerprint)
    AND r.severity <> ALL(CAST(:below_severity AS text[])) AND (:include_merged OR r.merged_into IS NULL)
    AND (r.last_seen_time, r.id) < (coalesce(CAST(:seen AS timestamptz), 'infinity'), CAST(:after AS uuid))"""
LIST = f"SELECT {COLUMNS} {FROM} WHERE {_FILTERS} ORDER BY r.last_seen_time DESC, r.id DESC LIMIT :limit"
LIST_OF_PLUGIN = LIST.replace("(:plugin = '' OR r.plugin = :plugin)", "r.plugin = :plugin")
LIST_ESCALATED = LIST.replace("(:state = '' OR r.state = :state)", "r.escalated AND r.state = :state")
UNTRIAGED = f"""
SELECT {COLUMNS} {FROM} WHERE r.triage_time <= :now ORDER BY r.triage_time LIMIT :limit
"""


# No id comes after this one.
LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True)
class Occurrence:
    """One kind of error of a batch, ready to be counted; `id` is the report's if it is the first."""

    id: str
    plugin: str
    merchant: str
    package: str
    release: str
    label: str
    fingerprint: str
    grouping: tuple[str, ...]
    type: str
    severity: str
    module: str
    message: str
    stack: str
    context: dict[str, str]
    counter: str
    value: int
    # By our clock; `reported_time` is by the reporter's own, and only shown.
    seen: datetime
    reported_time: datetime | None
    traceparent: str
    # Of `value`, what was counted elsewhere before this was a report of its own.
    base: int = 0


@dataclass(frozen=True)
class Filters:
    """Which reports a list wants; empty means any. `below_severity` are the severities left out."""

    plugin: str
    state: str
    type: str
    fingerprint: str
    below_severity: tuple[str, ...]
    include_merged: bool = False


async def upsert(tx: Transaction, occurrences: Sequence[Occurrence], source: str) -> Sequence[Any]:
    """Counts occurrences, each of another kind, in one statement; a row for each: what it is now and was."""
    ordered = sorted(occurrences, key=lambda one: (one.plugin, one.fingerprint))
    fields = "id plugin merchant package release label fingerprint type severity counter value seen reported_time"
    return await tx.all(UPSERT, source=source, now=tx.now, **columns(ordered, f"{fields} traceparent base"))


async def insert_details(tx: Transaction, occurrences: Sequence[Occurrence]) -> None:
    """Saves the details of the first occurrence of each new report."""
    values = columns(occurrences, "id merchant type module message stack")
    contexts = [json.dumps(one.context) for one in occurrences]
    groupings = ["\n".join(one.grouping) for one in occurrences]
    await tx.run(INSERT_DETAILS, context=contexts, grouping=groupings, **values)


async def get(tx: Transaction, report: str) -> Any | None:
    """One report with its contents."""
    return await tx.first(GET, id=report)


async def get_many(tx: Transaction, reports: Sequence[str]) -> dict[str, Any]:
    """Reports with their contents, by id."""
    return {str(row.id): row for row in await tx.all(SOME, ids=list(reports))}


async def page(tx: Transaction, filters: Filters, page: Page) -> Sequence[Any]:
    """A page of reports, last seen first."""
    seen, after = page.after or (None, LAST)
    # What has a good index gets a statement of its own: one plan cannot serve every filter.
    statement = LIST_OF_PLUGIN if filters.plugin else LIST_ESCALATED if filters.state == "escalated" else LIST
    values = vars(filters) | {"below_severity": list(filters.below_severity)}
    return await tx.all(statement, seen=seen, after=after, limit=page.limit, **values)


async def untriaged(tx: Transaction, now: datetime, limit: int) -> Sequence[Any]:
    """Reports that wait for triage, the longest waiting first."""
    return await tx.all(UNTRIAGED, now=now, limit=limit)


def report(row: Any) -> Report:
    """What triage reads of a row."""
    return Report(
        id=str(row.id),
        plugin=row.plugin,
        merchant=row.merchant,
        package=row.package,
        release=row.release,
        type=row.reported_type,
        message=row.message,
        label=row.label,
        severity=row.reported_severity,
        module=row.module,
        stack=row.stack,
        fingerprint=row.fingerprint,
        context=row.context,
        occurrences=row.occurrences,
        regressions=row.regressions,
        tried_strategies=tuple(row.tried_strategies),
    )
