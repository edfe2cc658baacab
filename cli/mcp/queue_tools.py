"""Tools that read the resolution queue: error reports, tasks, strategies, proposals, figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import Field

from cli import id_lookup, listings
from cli.formatting import enum_label
from cli.mcp.access import PlaneConnection, tool
from cli.mcp.healing_tools import Limit, PluginFilter, number
from cli.mcp.queue_results import (
    Error,
    ErrorDetail,
    ErrorExplained,
    HistoryEntry,
    Proposal,
    QueueStats,
    Strategy,
    StrategyMatch,
    Task,
    TaskDetail,
    Triage,
)
from cli.mcp.tool_results import time, untrusted
from prunella.v1 import queue_pb2
from prunella.v1.events_pb2 import Severity

ErrorId = Annotated[str, Field(description="Id of the error report, or the end of it.")]
TASK_STATES = "pending, processing, retrying, completed, failed or cancelled"
ERROR_STATES = "new, triaging, in_progress, resolved_pending, resolved, escalated or closed"


class QueueTools:
    """Reads queue."""

    def __init__(self, connection: PlaneConnection) -> None:
        self.connection = connection

    def tools(self) -> list[Callable[..., Awaitable[Any]]]:
        """Every tool of this file."""
        return [
            self.list_errors, self.get_error, self.explain_error, self.queue_stats, self.list_tasks, self.get_task,
            self.list_strategies, self.list_proposals,
        ]  # fmt: skip

    @tool
    async def list_errors(
        self,
        plugin: PluginFilter = "",
        state: Annotated[str, Field(description=f"Only {ERROR_STATES}.")] = "",
        type: Annotated[str, Field(description="Only of this type, such as timeout.")] = "",  # noqa: A002
        min_severity: Annotated[str, Field(description="At least low, medium, high or critical.")] = "",
        limit: Limit = 50,
    ) -> list[Error]:
        """Kinds of errors that plugins met, last seen first."""
        plane = self.connection.plane()
        filters = await id_lookup.filters(
            plane,
            plugin=plugin,
            state=number(queue_pb2.ReportState, state, "state"),
            type=type,
            min_severity=number(Severity, min_severity, "min_severity"),
        )
        return [_error(one) async for one in listings.reports(plane, limit, **filters)]

    @tool
    async def get_error(self, error: ErrorId) -> ErrorDetail:
        """One error report with its stack and everything that was tried."""
        plane = self.connection.plane()
        answer = await plane.call("queue.GetErrorReport", name=await id_lookup.resource(plane, "errorReports", error))
        context = ", ".join(f"{name}={value}" for name, value in sorted(answer.report.context.items()))
        return ErrorDetail(
            error=_error(answer.report),
            stack=untrusted(answer.report.stack),
            context=untrusted(context),
            history=[_history_entry(entry) for entry in answer.history],
        )

    @tool
    async def explain_error(self, error: ErrorId) -> ErrorExplained:
        """Why its occurrences are one, what it was taken for, and which strategies fit how well."""
        plane = self.connection.plane()
        name = await id_lookup.resource(plane, "errorReports", error)
        answer = await plane.call("queue.ExplainErrorReport", name=name)
        return ErrorExplained(
            grouping=[untrusted(line) for line in answer.grouping],
            triage=_triage(answer.triage),
            strategies=[_fit(one) for one in answer.strategies],
        )

    @tool
    async def queue_stats(self) -> QueueStats:
        """The resolution queue in figures."""
        answer = await self.connection.plane().call("queue.GetQueueStats")
        figures = ("success_rate_percent", "mean_completion_minutes", "oldest_waiting_seconds")
        values = {name: getattr(answer, name) if answer.HasField(name) else None for name in figures}
        return QueueStats(tasks=dict(answer.tasks), errors=dict(answer.reports), **values)

    @tool
    async def list_tasks(
        self,
        state: Annotated[str, Field(description=f"Only {TASK_STATES}.")] = "",
        error: Annotated[str, Field(description="Only for this error report.")] = "",
        plugin: PluginFilter = "",
        limit: Limit = 50,
    ) -> list[Task]:
        """Work for tools, newest first."""
        plane = self.connection.plane()
        wanted = number(queue_pb2.TaskState, state, "state")
        filters = await id_lookup.filters(plane, state=wanted, report=error, plugin=plugin)
        return [_task(one) async for one in listings.tasks(plane, limit, **filters)]

    @tool
    async def get_task(self, task: Annotated[str, Field(description="Its id, or the end of it.")]) -> TaskDetail:
        """One task and everything that was tried."""
        plane = self.connection.plane()
        answer = await plane.call("queue.GetTask", name=await id_lookup.resource(plane, "tasks", task))
        return TaskDetail(task=_task(answer.task), history=[_history_entry(entry) for entry in answer.history])

    @tool
    async def list_strategies(
        self,
        type: Annotated[str, Field(description="Only for this type of error.")] = "",  # noqa: A002
    ) -> list[Strategy]:
        """The ways in which tools heal, best first."""
        answer = await self.connection.plane().call("queue.ListStrategies", type=type)
        return [_strategy(one) for one in answer.strategies]

    @tool
    async def list_proposals(
        self,
        state: Annotated[str, Field(description="Only open, approved, rejected or expired.")] = "",
        limit: Limit = 50,
    ) -> list[Proposal]:
        """What programs asked people for, and what they said."""
        return [proposal(one) async for one in listings.proposals(self.connection.plane(), limit, state=state)]


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _triage(one: Any) -> Triage:
    return Triage(
        type=one.type, severity=enum_label(Severity, one.severity), auto_fixable=one.auto_fixable,
        confidence=one.confidence, origin=one.origin, strategy=_bare(one.strategy), tools=list(one.tools),
        explanation=untrusted(one.explanation),
    )  # fmt: skip


def _error(one: Any) -> Error:
    return Error(
        id=_bare(one.name), plugin=one.plugin, package=one.package, release=one.release,
        state=enum_label(queue_pb2.ReportState, one.state), severity=enum_label(Severity, one.severity),
        reported_type=untrusted(one.type), message=untrusted(one.message), module=untrusted(one.module),
        occurrences=one.occurrences, regressions=one.regressions, first_seen_time=time(one.first_seen_time),
        last_seen_time=time(one.last_seen_time), triage=_triage(one.triage), task=_bare(one.task),
        reason=untrusted(one.reason),
    )  # fmt: skip


def _history_entry(one: Any) -> HistoryEntry:
    return HistoryEntry(
        create_time=time(one.create_time), task=_bare(one.task), strategy=_bare(one.strategy), worker=one.worker,
        success=one.success, outcome=one.outcome, tools_used=list(one.tools_used), details=untrusted(one.details),
    )  # fmt: skip


def _fit(one: Any) -> StrategyMatch:
    return StrategyMatch(
        strategy=_bare(one.strategy.name), score=one.score, best=one.best, confidence=one.strategy.confidence,
        approved=one.strategy.approved, explanation=untrusted(one.explanation),
    )  # fmt: skip


def _task(one: Any) -> Task:
    return Task(
        id=_bare(one.name), error=_bare(one.report), plugin=one.plugin,
        state=enum_label(queue_pb2.TaskState, one.state), priority=one.priority, strategy=_bare(one.strategy),
        tools=list(one.tools), attempts=one.attempts, crashes=one.crashes, max_attempts=one.max_attempts,
        worker=one.worker, run_time=time(one.run_time), lease_expire_time=time(one.lease_expire_time),
        create_time=time(one.create_time), end_time=time(one.end_time), reason=untrusted(one.reason),
    )  # fmt: skip


def _strategy(one: Any) -> Strategy:
    return Strategy(
        name=_bare(one.name), title=one.title, type=one.type, state=one.state, confidence=one.confidence,
        successes=one.successes, failures=one.failures, writes=any(step.write for step in one.steps),
        approved=one.approved, steps=[f"{step.tool}: {step.purpose}".removesuffix(": ") for step in one.steps],
    )  # fmt: skip


def proposal(one: Any) -> Proposal:
    """A proposal as data."""
    return Proposal(
        id=_bare(one.name), action=one.action, target=one.target, reason=untrusted(one.reason), author=one.author,
        state=one.state, decided_by=one.decided_by, decision_reason=untrusted(one.decision_reason),
        create_time=time(one.create_time), expire_time=time(one.expire_time),
    )  # fmt: skip
