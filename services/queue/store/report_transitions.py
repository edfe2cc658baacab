"""What triage, watching and people make of reports: each a statement over as many reports as there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

LOCK = """
SELECT id, state, triage_at FROM queue.reports
WHERE id = ANY(CAST(:ids AS uuid[])) AND triage_at IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED
"""
FILE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:types AS text[]),
        CAST(:severities AS text[]), CAST(:tasks AS uuid[]), CAST(:strategies AS text[]), CAST(:awaits AS text[]),
        CAST(:reasons AS text[]), CAST(:triages AS text[]))
        AS g (id, state, type, severity, task, strategy, awaits, reason, triage)),
filed AS (
    UPDATE queue.contents c SET triage = CAST(g.triage AS jsonb) FROM given g WHERE c.report = g.id)
UPDATE queue.reports r SET state = g.state, type = g.type, severity = g.severity, triage_at = NULL,
    task = coalesce(g.task, r.task), strategy = g.strategy, awaits = g.awaits, with_person = g.state = 'escalated',
    reason = g.reason, resolved_at = NULL, watch_until = NULL
FROM given g WHERE r.id = g.id
"""
ASK = """
UPDATE queue.reports SET state = 'triaging', triage_at = :until, reason = 'the model is asked what it is'
WHERE id = ANY(CAST(:ids AS uuid[]))
"""
ESCALATE = """
UPDATE queue.reports r SET state = 'escalated', with_person = true, triage_at = NULL, watch_until = NULL,
    reason = g.reason, awaits = g.awaits
FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[]), CAST(:awaits AS text[])) AS g (id, reason, awaits)
WHERE r.id = g.id
RETURNING r.id, r.plugin, r.merchant, r.type, r.severity, r.task, r.tried, r.reason, r.traceparent
"""
LOCK_REPORT = """
SELECT id, plugin, merchant, state, type, severity, task, strategy, tried, opened_at, traceparent FROM queue.reports
WHERE id = CAST(:id AS uuid) FOR UPDATE
"""
MOVE = """
UPDATE queue.reports SET state = :state, reason = :reason, with_person = false, triage_at = :triage_at,
    watch_until = NULL, awaits = '', resolved_by = :resolved_by, method = :method, resolved_at = :resolved_at,
    task = coalesce(CAST(:task AS uuid), task)
WHERE id = CAST(:id AS uuid)
"""
# A watch is a batch of reports that were resolved together; each is looked at again, since it may have come back.
WATCHED = """
WITH over AS MATERIALIZED (
    SELECT id, reports FROM queue.watches WHERE until <= :now ORDER BY until LIMIT 1 FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM queue.watches w USING over WHERE w.id = over.id)
SELECT unnest(reports) AS id FROM over
"""
VERIFY = """
UPDATE queue.reports r SET state = 'resolved', watch_until = NULL, reason = 'it did not come back: verified'
WHERE r.id = ANY(CAST(:ids AS uuid[])) AND r.state = 'resolved_pending' AND r.watch_until <= :now
RETURNING r.id, r.plugin, r.merchant, r.type, r.package, r.task, r.strategy, r.method, r.resolved_by, r.opened_at,
    r.traceparent
"""
AWAITING = """
UPDATE queue.reports r SET state = 'new', triage_at = :now, with_person = false, awaits = '', reason = :reason
WHERE r.awaits = :strategy AND r.awaits <> '' AND r.state = 'escalated' RETURNING r.id
"""


@dataclass(frozen=True)
class TriageRecord:
    """What triage makes of one report; `task` is empty when it goes to a person."""

    report: str
    state: str
    type: str
    severity: str
    task: str
    strategy: str
    awaits: str
    reason: str
    triage: Mapping[str, Any]


async def lock(tx: Transaction, reports: Sequence[str]) -> dict[str, Any]:
    """Those that still wait for triage and nobody else holds, locked until the commit."""
    return {str(row.id): row for row in await tx.all(LOCK, ids=list(reports))}


async def file(tx: Transaction, filed: Sequence[TriageRecord]) -> None:
    """Writes what triage made of reports."""
    await tx.run(
        FILE,
        ids=[one.report for one in filed],
        states=[one.state for one in filed],
        types=[one.type for one in filed],
        severities=[one.severity for one in filed],
        tasks=[one.task or None for one in filed],
        strategies=[one.strategy for one in filed],
        awaits=[one.awaits for one in filed],
        reasons=[one.reason for one in filed],
        triages=[json.dumps(one.triage) for one in filed],
    )


async def ask(tx: Transaction, reports: Sequence[str], until: datetime) -> None:
    """Marks reports as asked about; by `until` they are triaged without an answer."""
    await tx.run(ASK, ids=list(reports), until=until)


async def escalate(tx: Transaction, reasons: Mapping[str, str], awaits: Mapping[str, str]) -> Sequence[Any]:
    """Gives reports to a person, each with a reason; `awaits` are the strategies whose approval brings them back."""
    waited = [awaits.get(report, "") for report in reasons]
    return await tx.all(ESCALATE, ids=list(reasons), reasons=list(reasons.values()), awaits=waited)


async def lock_report(tx: Transaction, report: str) -> Any | None:
    """One report, locked until the commit."""
    return await tx.first(LOCK_REPORT, id=report)


async def move(
    tx: Transaction,
    report: str,
    state: str,
    reason: str,
    *,
    task: str | None = None,
    resolved_by: str = "",
    method: str = "",
) -> None:
    """Puts a report where a person's word puts it."""
    await tx.run(
        MOVE,
        id=report,
        state=state,
        reason=reason,
        task=task,
        triage_at=tx.now if state == "new" else None,
        resolved_by=resolved_by,
        method=method,
        resolved_at=tx.now if state == "closed" else None,
    )


async def watched(tx: Transaction) -> list[str]:
    """The reports of one watch that is over; the watch is gone with the commit."""
    return [str(row.id) for row in await tx.all(WATCHED, now=tx.now)]


async def verify(tx: Transaction, reports: Sequence[str]) -> Sequence[Any]:
    """Resolves those whose watch window passed without a recurrence."""
    return await tx.all(VERIFY, ids=sorted(reports), now=tx.now)


async def awaiting(tx: Transaction, strategy: str, reason: str) -> int:
    """Has reports that waited for a strategy's approval looked at again; how many."""
    return len(await tx.all(AWAITING, strategy=strategy, reason=reason, now=tx.now))
