"""What the tools about the resolution queue answer with: error reports, tasks, strategies, proposals, figures."""

from __future__ import annotations

from pydantic import BaseModel, Field

from cli.mcp.tool_results import Untrusted


class Triage(BaseModel):
    """What an error report was taken for."""

    type: str
    severity: str
    auto_fixable: bool
    confidence: float
    origin: str = Field(description="pattern, classifier, model or none; empty before it was understood.")
    strategy: str
    tools: list[str]
    explanation: Untrusted


class Error(BaseModel):
    """One kind of error on one plugin, however often it occurred."""

    id: str
    plugin: str
    package: str
    release: str
    state: str
    severity: str
    reported_type: Untrusted
    message: Untrusted
    module: Untrusted
    occurrences: int
    regressions: int
    first_seen_time: str
    last_seen_time: str
    triage: Triage
    task: str
    reason: Untrusted


class HistoryEntry(BaseModel):
    """Something that was done about an error report."""

    create_time: str
    task: str
    strategy: str
    worker: str
    success: bool
    outcome: str
    tools_used: list[str]
    details: Untrusted


class ErrorDetail(BaseModel):
    """An error report with its stack, context and everything that was tried."""

    error: Error
    stack: Untrusted
    context: Untrusted
    history: list[HistoryEntry]


class StrategyMatch(BaseModel):
    """How well a strategy fits an error report."""

    strategy: str
    score: float
    best: bool
    confidence: float
    approved: bool
    explanation: Untrusted


class ErrorExplained(BaseModel):
    """Why the occurrences of a report are one, what it was taken for, and which strategies fit."""

    grouping: list[Untrusted]
    triage: Triage
    strategies: list[StrategyMatch]


class Task(BaseModel):
    """One strategy for one error report."""

    id: str
    error: str
    plugin: str
    state: str
    priority: int
    strategy: str
    tools: list[str]
    attempts: int
    crashes: int
    max_attempts: int
    worker: str
    run_time: str
    lease_expire_time: str
    create_time: str
    end_time: str
    reason: Untrusted


class TaskDetail(BaseModel):
    """A task and everything that was tried."""

    task: Task
    history: list[HistoryEntry]


class Strategy(BaseModel):
    """A way in which tools heal errors of one type."""

    name: str
    title: str
    type: str
    state: str
    confidence: float = Field(description="Lower 90 % bound of verified success.")
    successes: int
    failures: int
    writes: bool = Field(description="Whether it uses tools that change something.")
    approved: bool = Field(description="Whether it may.")
    steps: list[str]


class QueueStats(BaseModel):
    """The queue in figures; None where there is no data."""

    tasks: dict[str, int]
    errors: dict[str, int]
    success_rate_percent: float | None
    mean_completion_minutes: float | None
    oldest_waiting_seconds: float | None


class Proposal(BaseModel):
    """Something a program asks people for."""

    id: str
    action: str
    target: str
    reason: Untrusted
    author: str
    state: str
    decided_by: str
    decision_reason: Untrusted
    create_time: str
    expire_time: str
