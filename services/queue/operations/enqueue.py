"""The end of triage, shared by its sweep and the errand: a task is enqueued, or the report is escalated.

Rule: a report whose triage has no blocker gets one task, of the strategy chosen; every other is escalated with the
reason. Report, task and both facts are one transaction, whoever concluded. The strategy whose approval a report awaits
is stored with it, so that the approval reopens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import counter, current_telemetry, use_traceparent
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.report import Blocker, Triage
from services.queue.store import report_transitions, reports, state_counts, tasks
from services.queue.store.report_transitions import TriageRecord
from services.queue.store.tasks import NewTask
from services.queue.wire import facts

_triaged = counter(
    "queue_triaged_total", "Reports triaged, by who said what they are and what followed", ("origin", "to")
)


async def save_model_triage(tx: Transaction, ctx: ServiceContext, report: str, triage: Triage) -> bool:
    """Saves the triage of one report that the model was asked about; False when somebody else was faster."""
    row = await reports.get(tx, report)
    if row is None:
        return False
    return await save_triage(tx, ctx, [(row, triage)]) == 1


async def save_triage(tx: Transaction, ctx: ServiceContext, judged: Sequence[tuple[Any, Triage]]) -> int:
    """Saves the triage of reports (rows of store.reports); returns how many were still waiting for it."""
    # One that came back meanwhile is read again first.
    unchanged = await report_transitions.lock_unchanged(tx, [row for row, _ in judged])
    current = [(row, triage) for row, triage in judged if str(row.id) in unchanged]
    if not current:
        return 0
    workable = [triage.tools for _, triage in current if triage.blocker is None]
    toolsets = await ctx.toolsets.ids(tx, workable)
    made = {
        str(row.id): _task(tx, row, triage, toolsets[tuple(sorted(triage.tools))])
        for row, triage in current
        if triage.blocker is None
    }
    await report_transitions.save_triage(
        tx, [_record(tx, row, triage, made.get(str(row.id))) for row, triage in current]
    )
    if made:
        await tasks.insert(tx, list(made.values()), leases.max_attempts(ctx.settings.delays))
    states = ((row.state, "in_progress" if str(row.id) in made else "escalated", 0) for row, _ in current)
    await state_counts.add_transitions(tx, "report", states)
    await state_counts.add_transitions(tx, "task", (("", "pending", task.priority) for task in made.values()))
    for row, triage in current:
        _record_facts(tx, row, triage, made.get(str(row.id)))
    if made:
        tx.after_commit(ctx.wake_claims)
    return len(current)


def _task(tx: Transaction, row: Any, triage: Triage, toolset: int) -> NewTask:
    priority = leases.priority(triage.severity, triage.confidence)
    return NewTask(
        id=new_id(tx.now),
        report=str(row.id),
        plugin=row.plugin,
        merchant=row.merchant,
        strategy=triage.strategy,
        toolset=toolset,
        priority=priority,
        rank=leases.rank(tx.now, priority),
        estimated_seconds=triage.estimated_seconds,
        traceparent=row.traceparent,
    )


def _record(tx: Transaction, row: Any, triage: Triage, task: NewTask | None) -> TriageRecord:
    awaiting_approval = triage.strategy if triage.blocker is Blocker.WRITE_NOT_APPROVED else ""
    return TriageRecord(
        report=str(row.id),
        state="in_progress" if task else "escalated",
        type=triage.type,
        severity=triage.severity,
        task=task.id if task else None,
        strategy=task.strategy if task else row.strategy,
        awaiting_approval=awaiting_approval,
        reason=triage_reason(triage),
        triage=vars(triage) | {"time": tx.now.isoformat()},
    )


def triage_reason(triage: Triage) -> str:
    """Why a report is where its triage put it, for people."""
    return f"{triage.blocker}: {triage.explanation}" if triage.blocker else triage.explanation


def _record_facts(tx: Transaction, row: Any, triage: Triage, task: NewTask | None) -> None:
    report, began = str(row.id), tx.now
    about = {"plugin": row.plugin, "merchant": row.merchant}
    with use_traceparent(row.traceparent):
        tx.record(facts.report_triaged(report, triage, reason=triage_reason(triage), **about))
        if task:
            tx.record(facts.task_created(task, triage.tools, **about))
        else:
            escalation = facts.escalation(report, "", triage.type, triage.severity, tuple(row.tried_strategies))
            tx.record(facts.report_escalated(escalation, reason=triage_reason(triage), **about))
    to = "task" if task else "escalated"
    tx.after_commit(_triaged.labels(str(triage.origin), to).inc)
    attributes = {"report": report, "type": triage.type, "origin": str(triage.origin), "to": to}
    parent = row.traceparent
    tx.after_commit(lambda: _span(began, parent, attributes))


def _span(began: Any, parent: str, attributes: dict[str, Any]) -> None:
    if parent:
        current_telemetry().span_at("triage", began, began, parent=parent, attributes=attributes)
