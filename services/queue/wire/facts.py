"""The facts of queue, each made in one place: who did it, explanation, and about whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from libs.common.bus import fact
from prunella.v1 import events_pb2 as pb
from services.queue.leases import NO_WORKER
from services.queue.proposals import Proposal
from services.queue.report import Triage
from services.queue.store.tasks import NewTask
from services.queue.strategies import StrategyStatus
from services.queue.wire.enums import severity_value

SCHEMA = "queue"
QUOTE = 200


def error_reported(row: Any, message: str, *, regression: bool) -> pb.Event:
    """A first occurrence, or one that came back."""
    proto = pb.ErrorReported(
        report=str(row.id),
        fingerprint=row.fingerprint,
        message=message[:QUOTE],
        package=row.package,
        release=row.release,
        regression=regression,
    )
    reason = f"it came back after it was {row.previous_state}" if regression else "an error of a new kind"
    return fact(SCHEMA, proto, reason=reason, plugin=row.plugin, merchant=row.merchant)


def report_triaged(report: str, triage: Triage, *, reason: str, plugin: str, merchant: str) -> pb.Event:
    """What was understood of a report."""
    proto = pb.ReportTriaged(
        report=report,
        type=triage.type,
        severity=severity_value(triage.severity),
        auto_fixable=triage.auto_fixable,
        confidence=triage.confidence,
        origin=str(triage.origin),
        strategy=triage.strategy,
        tools=triage.tools,
    )
    proto.estimated_duration.FromMilliseconds(round(triage.estimated_seconds * 1000))
    return fact(SCHEMA, proto, reason=reason, plugin=plugin, merchant=merchant)


def task_created(task: NewTask, tools: Sequence[str], *, plugin: str, merchant: str) -> pb.Event:
    """Work on a report waits."""
    proto = pb.TaskCreated(
        task=task.id, report=task.report, priority=task.priority, strategy=task.strategy, tools=tools
    )
    return fact(
        SCHEMA, proto, reason=f"{task.strategy} with priority {task.priority}", plugin=plugin, merchant=merchant
    )


def escalation(report: str, task: str, type_: str, severity: str, tried: Sequence[str]) -> pb.ReportEscalated:
    """An escalation, with the strategies that were tried."""
    return pb.ReportEscalated(
        report=report, task=task, type=type_, severity=severity_value(severity), tried_strategies=tried
    )


def report_escalated(
    proto: pb.ReportEscalated, *, reason: str, plugin: str, merchant: str, actor: str = ""
) -> pb.Event:
    """A report is escalated."""
    return fact(SCHEMA, proto, actor=actor, reason=reason, plugin=plugin, merchant=merchant)


def tasks_claimed(worker: str, leased: Sequence[Any], until: datetime, *, actor: str) -> pb.Event:
    """A worker took tasks."""
    proto = pb.TasksClaimed(worker=worker)
    proto.lease_expire_time.FromDatetime(until)
    add = proto.leases.add
    for row in leased:
        add(task=str(row.id), report=str(row.report), token=row.token, attempt=row.attempts + row.crashes + 1)
    count = len(leased)
    one = leased[0] if count == 1 else None
    reason = f"{worker} took {count} task{'' if count == 1 else 's'}"
    return _about(proto, one, actor, reason)


def tasks_finished(worker: str, ended: Sequence[Any], *, actor: str) -> pb.Event:
    """Tries ended under valid tokens."""
    proto = pb.TasksFinished(worker=worker)
    _add_outcomes(proto.outcomes, ended)
    states = sorted({row.state for row in ended})
    reason = f"{worker or actor}: {len(ended)} {', '.join(states)}"
    if len(ended) == 1 and ended[0].state != "completed":
        reason = f"{ended[0].outcome}: {ended[0].state}"
    return _about(proto, ended[0] if len(ended) == 1 else None, actor, reason)


def tasks_recovered(ended: Sequence[Any], *, actor: str, reason: str, outcome: str) -> pb.Event:
    """Tasks were taken back; one that nobody held has no token."""
    proto = pb.TasksRecovered()
    for row in ended:
        token = 0 if outcome == NO_WORKER else row.token - 1
        proto.outcomes.add(task=str(row.id), report=str(row.report), token=token, state=row.state, failure=outcome)
    return _about(proto, ended[0] if len(ended) == 1 else None, actor, reason)


def task_retried(row: Any, priority: int, *, actor: str, reason: str) -> pb.Event:
    """A person gave a task another try."""
    return _about(pb.TaskRetried(task=str(row.id), report=str(row.report), priority=priority), row, actor, reason)


def task_cancelled(row: Any, *, actor: str, reason: str) -> pb.Event:
    """A person took a task out."""
    return _about(pb.TaskCancelled(task=str(row.id), report=str(row.report)), row, actor, reason)


def tasks_cleaned_up(tasks: int, days: int, *, actor: str, reason: str) -> pb.Event:
    """A person had old tasks deleted."""
    return fact(SCHEMA, pb.TasksCleanedUp(tasks=tasks, days=days), actor=actor, reason=reason)


def report_resolved(row: Any, now: datetime) -> pb.Event:
    """The watch window passed."""
    proto = pb.ReportResolved(
        report=str(row.id), task=str(row.task or ""), strategy=row.strategy, method=row.resolution_method
    )
    proto.open_duration.FromTimedelta(max(now, row.open_time) - row.open_time)
    reason = f"{row.resolution_method or row.strategy} helped: it did not come back"
    return fact(SCHEMA, proto, reason=reason, plugin=row.plugin, merchant=row.merchant)


def report_closed(row: Any, *, actor: str, reason: str) -> pb.Event:
    """A person ended a report."""
    return _about(pb.ReportClosed(report=str(row.id)), row, actor, reason)


def reports_merged(row: Any, merged: Sequence[str], *, actor: str, reason: str) -> pb.Event:
    """A person said that reports are one."""
    return _about(pb.ReportsMerged(report=str(row.id), merged=merged), row, actor, reason)


def reports_split(row: Any, split: Sequence[str], *, actor: str, reason: str) -> pb.Event:
    """A person took a merge back."""
    return _about(pb.ReportsSplit(report=str(row.id), split=split), row, actor, reason)


def strategy_changed(
    strategy: str, before: StrategyStatus, after: StrategyStatus, confidence: float, *, actor: str, reason: str
) -> pb.Event:
    """A strategy's status changed."""
    proto = pb.StrategyChanged(strategy=strategy, confidence=confidence, approved=after.approved, to=after.state)
    setattr(proto, "from", before.state)
    return fact(SCHEMA, proto, actor=actor, reason=reason)


def proposal_created(proposal: Proposal) -> pb.Event:
    """A program asks people for something."""
    proto = pb.ProposalCreated(proposal=proposal.id, action=proposal.action, target=proposal.target)
    return fact(SCHEMA, proto, actor=proposal.author, reason=proposal.reason)


def proposal_decided(proposal: Proposal, *, approved: bool, actor: str, reason: str) -> pb.Event:
    """A person agreed or refused, or nobody did in time."""
    proto = pb.ProposalDecided(proposal=proposal.id, action=proposal.action, target=proposal.target, approved=approved)
    return fact(SCHEMA, proto, actor=actor, reason=reason)


def _add_outcomes(outcomes: Any, rows: Iterable[Any]) -> None:
    for row in rows:
        outcome = outcomes.add(
            task=str(row.id), report=str(row.report), token=row.token, state=row.state, method=row.method
        )
        if row.state != "completed":
            outcome.failure = row.outcome
            if row.state == "retrying":
                outcome.run_time.FromDatetime(row.run_time)


def _about(proto: Any, row: Any | None, actor: str, reason: str) -> pb.Event:
    plugin, merchant = (row.plugin, row.merchant) if row is not None else ("", "")
    return fact(SCHEMA, proto, actor=actor, reason=reason, plugin=plugin, merchant=merchant)
