"""Transitions of reports by triage, watch windows and operators: each a statement over any number of reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.queue.store.columns import columns

LOCK = """
SELECT id, state, triage_time FROM queue.reports
WHERE id = ANY(CAST(:ids AS uuid[])) AND triage_time IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED
"""
SAVE_TRIAGE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:report AS uuid[]), CAST(:state AS text[]), CAST(:type AS text[]),
        CAST(:severity AS text[]), CAST(:task AS uuid[]), CAST(:strategy AS text[]),
        CAST(:awaiting_approval AS text[]), CAST(:reason AS text[]), CAST(:triage AS text[]))
        AS g (id, state, type, severity, task, strategy, awaiting_approval, reason, triage)),
details AS (
    UPDATE queue.report_details d SET triage = CAST(g.triage AS jsonb) FROM given g WHERE d.report = g.id)
UPDATE queue.reports r SET state = g.state, type = g.type, severity = g.severity, triage_time = NULL,
    task = coalesce(g.task, r.task), strategy = g.strategy, awaiting_approval = g.awaiting_approval,
    escalated = g.state = 'escalated', reason = g.reason, resolve_time = NULL, watch_end_time = NULL
FROM given g WHERE r.id = g.id
"""
MARK_TRIAGING = """
UPDATE queue.reports SET state = 'triaging', triage_time = :until, reason = 'the model is asked what it is'
WHERE id = ANY(CAST(:ids AS uuid[]))
"""
ESCALATE = """
UPDATE queue.reports r SET state = 'escalated', escalated = true, triage_time = NULL, watch_end_time = NULL,
    reason = g.reason, awaiting_approval = g.awaiting_approval
FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[]), CAST(:awaiting_approval AS text[]))
    AS g (id, reason, awaiting_approval)
WHERE r.id = g.id
RETURNING r.id, r.plugin, r.merchant, r.type, r.severity, r.task, r.tried_strategies, r.reason, r.traceparent
"""
LOCK_REPORT = """
SELECT id, plugin, merchant, state, type, severity, task, strategy, tried_strategies, open_time, traceparent,
    merged_into
FROM queue.reports
WHERE id = CAST(:id AS uuid) FOR UPDATE
"""
SET_STATE = """
UPDATE queue.reports SET state = :state, reason = :reason, escalated = false, triage_time = :triage_time,
    watch_end_time = NULL, awaiting_approval = '', resolved_by = :resolved_by, resolution_method = :method,
    resolve_time = :resolve_time,
    task = coalesce(CAST(:task AS uuid), task)
WHERE id = CAST(:id AS uuid)
"""
# A watch is a batch of one merchant's reports that were resolved together; each may have come back since.
END_WATCH = """
WITH over AS MATERIALIZED (
    SELECT id, reports FROM queue.watches WHERE end_time <= :now ORDER BY end_time LIMIT 1 FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM queue.watches w USING over WHERE w.id = over.id)
SELECT unnest(reports) AS id FROM over
"""
RESOLVE = """
UPDATE queue.reports r SET state = 'resolved', watch_end_time = NULL, reason = 'it did not come back: verified'
WHERE r.id = ANY(CAST(:ids AS uuid[])) AND r.state = 'resolved_pending' AND r.watch_end_time <= :now
RETURNING r.id, r.plugin, r.merchant, r.type, r.package, r.task, r.strategy, r.resolution_method, r.resolved_by,
    r.open_time, r.traceparent
"""
REOPEN_APPROVED = """
UPDATE queue.reports r SET state = 'new', triage_time = :now, escalated = false, awaiting_approval = '',
    reason = :reason
WHERE r.awaiting_approval = :strategy AND r.awaiting_approval <> '' AND r.state = 'escalated' RETURNING r.id
"""


@dataclass(frozen=True)
class TriageRecord:
    """What triage makes of one report; `task` is None when it goes to a person."""

    report: str
    state: str
    type: str
    severity: str
    task: str | None
    strategy: str
    awaiting_approval: str
    reason: str
    triage: Mapping[str, Any]


async def lock_unchanged(tx: Transaction, rows: Sequence[Any]) -> set[str]:
    """Ids of those that wait for triage as they were read and that nobody else holds, locked until the commit."""
    read = {str(row.id): (row.state, row.triage_time) for row in rows}
    locked = await tx.all(LOCK, ids=list(read))
    return {str(row.id) for row in locked if read[str(row.id)] == (row.state, row.triage_time)}


async def save_triage(tx: Transaction, records: Sequence[TriageRecord]) -> None:
    """Writes what triage made of reports."""
    values = columns(records, "report state type severity task strategy awaiting_approval reason")
    await tx.run(SAVE_TRIAGE, triage=[json.dumps(one.triage) for one in records], **values)


async def mark_triaging(tx: Transaction, reports: Sequence[str], until: datetime) -> None:
    """Marks reports as waiting for the model; at `until` they are triaged without an answer."""
    await tx.run(MARK_TRIAGING, ids=list(reports), until=until)


async def escalate(tx: Transaction, reasons: Mapping[str, str], awaiting_approval: Mapping[str, str]) -> Sequence[Any]:
    """Escalates reports, each with a reason; `awaiting_approval` names the strategies whose approval reopens them."""
    approvals = [awaiting_approval.get(report, "") for report in reasons]
    return await tx.all(ESCALATE, ids=list(reasons), reasons=list(reasons.values()), awaiting_approval=approvals)


async def lock_report(tx: Transaction, report: str) -> Any | None:
    """One report, locked until the commit."""
    return await tx.first(LOCK_REPORT, id=report)


async def set_state(
    tx: Transaction,
    report: str,
    state: str,
    reason: str,
    *,
    task: str | None = None,
    resolved_by: str = "",
    method: str = "",
) -> None:
    """Puts a report into the state that an operator chose."""
    await tx.run(
        SET_STATE,
        id=report,
        state=state,
        reason=reason,
        task=task,
        triage_time=tx.now if state == "new" else None,
        resolved_by=resolved_by,
        method=method,
        resolve_time=tx.now if state == "closed" else None,
    )


async def end_watch(tx: Transaction) -> list[str]:
    """The reports of one watch that is over; the watch is gone with the commit."""
    return [str(row.id) for row in await tx.all(END_WATCH, now=tx.now)]


async def resolve(tx: Transaction, reports: Sequence[str]) -> Sequence[Any]:
    """Resolves those whose watch window passed without a recurrence."""
    return await tx.all(RESOLVE, ids=sorted(reports), now=tx.now)


async def reopen_approved(tx: Transaction, strategy: str, reason: str) -> int:
    """Has reports that waited for a strategy's approval looked at again; how many."""
    return len(await tx.all(REOPEN_APPROVED, strategy=strategy, reason=reason, now=tx.now))
