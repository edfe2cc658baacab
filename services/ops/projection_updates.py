"""The updates that facts make of the rows of projections; see services/ops/projections.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.ops.attention import AttentionItem


@dataclass(frozen=True, slots=True)
class IncidentUpdate:
    """What one fact says of an incident. `severity`: 1 to 4, 0 for unsaid."""

    incident: str
    plugin: str
    merchant: str
    first_fact_time: datetime
    package: str = ""
    release: str = ""
    type: str = ""
    severity: int = 0
    evidence: str = ""
    rounds: int = 0
    first_bad_beat_time: datetime | None = None
    open_time: datetime | None = None
    decide_time: datetime | None = None
    apply_time: datetime | None = None
    escalate_time: datetime | None = None
    mitigate_time: datetime | None = None
    close_time: datetime | None = None
    reopen_time: datetime | None = None
    reopened: int = 0
    flapping: bool = False
    healed_by: str = ""
    resolution: str = ""
    manual: bool = False


@dataclass(frozen=True, slots=True)
class AttemptUpdate:
    """What one fact says of an attempt."""

    attempt: str
    incident: str
    plugin: str
    merchant: str
    state: str
    state_time: datetime
    state_rank: int
    decision: str = ""
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    by_operator: bool = False
    create_time: datetime | None = None
    apply_time: datetime | None = None
    held_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, with the tenth its predicted confidence lies in."""

    decision: str
    incident: str
    merchant: str
    create_time: datetime
    action: str
    origin: str
    confidence: float
    decile: int


@dataclass(frozen=True, slots=True)
class RetiredPlugin:
    """A plugin that left the fleet."""

    plugin: str
    merchant: str
    retire_time: datetime


@dataclass(frozen=True, slots=True)
class Intervention:
    """What a person did."""

    event: str
    time: datetime
    fact: str
    actor: str
    merchant: str
    incident: str


@dataclass(frozen=True, slots=True)
class ReportUpdate:
    """What one fact says of an error report."""

    report: str
    merchant: str
    report_time: datetime | None = None
    resolve_time: datetime | None = None
    escalate_time: datetime | None = None
    close_time: datetime | None = None
    open_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TaskOutcomes:
    """How many tries ended how, as one fact reports it."""

    event: str
    time: datetime
    completed: int
    retrying: int
    failed: int


Update = (
    IncidentUpdate
    | AttemptUpdate
    | Decision
    | AttentionItem
    | RetiredPlugin
    | Intervention
    | ReportUpdate
    | TaskOutcomes
)
