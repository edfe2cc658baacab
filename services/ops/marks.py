"""What one fact leaves on the rows that stories, figures and the overview are read from.

Rule: a mark says only what its fact says and leaves the rest empty; marks of one thing are merged by least, by most, or
by the latest (services/ops/states.py), so any order and any number of repeats makes the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from services.ops.kpis import decile
from services.ops.needs import SEVERITY, Need, needs
from services.ops.states import ATTEMPT, PEOPLE, by_hand
from services.ops.timeline import Told

# Stands for the plugin's label in a stored line: labels may become known after the fact.
WHO: Final = "{plugin}"


@dataclass(frozen=True, slots=True)
class About:
    """What every fact says of itself."""

    event: str
    at: datetime
    incident: str
    plugin: str
    merchant: str


@dataclass(frozen=True, slots=True)
class IncidentMark:
    """What one fact says of an incident. `severity`: 1 to 4, 0 for unsaid."""

    incident: str
    plugin: str
    merchant: str
    seen_at: datetime
    package: str = ""
    release: str = ""
    type: str = ""
    severity: int = 0
    evidence: str = ""
    rounds: int = 0
    first_bad_at: datetime | None = None
    opened_at: datetime | None = None
    decided_at: datetime | None = None
    applied_at: datetime | None = None
    escalated_at: datetime | None = None
    mitigated_at: datetime | None = None
    closed_at: datetime | None = None
    healed_by: str = ""
    resolution: str = ""
    manual: bool = False


@dataclass(frozen=True, slots=True)
class AttemptMark:
    """What one fact says of an attempt."""

    attempt: str
    incident: str
    plugin: str
    merchant: str
    state: str
    state_at: datetime
    state_rank: int
    decision: str = ""
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    by_person: bool = False
    created_at: datetime | None = None
    applied_at: datetime | None = None
    held_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DecisionMark:
    """A decision, with the tenth its stated confidence lies in."""

    decision: str
    incident: str
    merchant: str
    made_at: datetime
    action: str
    origin: str
    confidence: float
    decile: int


@dataclass(frozen=True, slots=True)
class NeedMark:
    """Something that is needed of people, or is no more."""

    need: Need
    about: About


@dataclass(frozen=True, slots=True)
class Left:
    """A plugin left the fleet."""

    plugin: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Intervention:
    """A person took a hand in it."""

    event: str
    at: datetime
    fact: str
    actor: str
    merchant: str
    incident: str


@dataclass(frozen=True, slots=True)
class ReportMark:
    """What one fact says of an error report."""

    report: str
    merchant: str
    first_at: datetime | None = None
    resolved_at: datetime | None = None
    escalated_at: datetime | None = None
    closed_at: datetime | None = None
    open_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TaskEnds:
    """How many tries ended how, as one fact tells it."""

    event: str
    at: datetime
    completed: int
    retrying: int
    failed: int


Mark = IncidentMark | AttemptMark | DecisionMark | NeedMark | Left | Intervention | ReportMark | TaskEnds


def marks(told: Told, about: About) -> Iterator[Mark]:
    """Everything one fact leaves behind."""
    if about.incident:
        yield _incident(told, about)
    if attempt := _attempt(told, about):
        yield attempt
    if told.fact == "decision_made" and told.text("decision", ""):
        yield _decision(told, about)
    unnamed = replace(told, who=WHO) if about.plugin else told
    for need in needs(unnamed, incident=about.incident, plugin=about.plugin, at=about.at):
        if need.subject:
            yield NeedMark(need, about)
    if told.fact == "plugin_retired":
        yield Left(about.plugin, about.at)
    if by_hand(told.fact, told.actor):
        yield Intervention(about.event, about.at, told.fact, told.actor, about.merchant, about.incident)
    if told.fact in REPORTS and told.text("report", ""):
        yield REPORTS[told.fact](told, about)
    if told.fact in {"tasks_finished", "tasks_recovered"}:
        yield _task_ends(told, about)


def _incident(told: Told, about: About) -> IncidentMark:
    mark = IncidentMark(
        about.incident,
        about.plugin,
        about.merchant,
        about.at,
        manual=by_hand(told.fact, told.actor),
        rounds=int(told.number("round")),
    )
    say = INCIDENTS.get(told.fact)
    return replace(mark, **say(told, about.at)) if say else mark


def _opened(told: Told, at: datetime) -> dict[str, Any]:
    evidence = told.part("evidence")
    return {
        **_broken(told),
        "opened_at": at,
        "first_bad_at": told.fields.get("first_bad_beat_time"),
        "package": told.text("package", ""),
        "release": told.text("release", ""),
        "evidence": str(evidence.get("summary") or told.reason)[:500],
    }


def _broken(told: Told) -> dict[str, Any]:
    return {"type": told.text("type", ""), "severity": SEVERITY.get(told.text("severity", ""), 0)}


INCIDENTS: Final[Mapping[str, Callable[[Told, datetime], dict[str, Any]]]] = {
    "incident_opened": _opened,
    "incident_round_started": lambda told, at: _broken(told),  # noqa: ARG005 - all are told the time
    "incident_escalated": lambda told, at: {**_broken(told), "escalated_at": at},
    "incident_mitigated": lambda told, at: {"mitigated_at": at, "healed_by": told.text("attempt", "")},
    "incident_closed": lambda told, at: {"closed_at": at, "resolution": told.text("resolution", told.reason)[:500]},
    "decision_made": lambda told, at: {"decided_at": at},  # noqa: ARG005
    "attempt_applied": lambda told, at: {"applied_at": at},  # noqa: ARG005
}


def _attempt(told: Told, about: About) -> AttemptMark | None:
    name = told.text("attempt", "")
    if told.fact.startswith("approval_"):
        collection, _, name = told.text("subject", "").partition("/")
        name = name if collection == "attempts" else ""
    if told.fact not in ATTEMPT or not name:
        return None
    state, rank = ATTEMPT[told.fact]
    named = not told.fact.startswith("approval_")
    return AttemptMark(
        attempt=name,
        incident=about.incident,
        plugin=about.plugin,
        merchant=about.merchant,
        state=state,
        state_at=about.at,
        state_rank=rank,
        decision=told.text("decision", "") if named else "",
        action=told.text("action", "") if named else "",
        from_release=told.text("from_release", "") if named else "",
        to_release=told.text("to_release", "") if named else "",
        by_person=told.fact == "attempt_created" and told.actor.startswith(PEOPLE),
        created_at=about.at if told.fact == "attempt_created" else None,
        applied_at=about.at if told.fact == "attempt_applied" else None,
        held_by=told.text("gate", "") if told.fact in {"attempt_held", "apply_denied"} else "",
        reason=told.reason[:500],
    )


def _decision(told: Told, about: About) -> DecisionMark:
    confidence = min(1.0, max(0.0, told.number("confidence")))
    return DecisionMark(
        told.text("decision"),
        about.incident,
        about.merchant,
        about.at,
        told.text("action", ""),
        told.text("origin", ""),
        confidence,
        decile(confidence),
    )


def _task_ends(told: Told, about: About) -> TaskEnds:
    words = [str(end.get("state") or "") for end in told.fields.get("outcomes") or ()]
    retrying = words.count("retrying") + words.count("pending")
    return TaskEnds(about.event, about.at, words.count("completed"), retrying, words.count("failed"))


def _resolved(told: Told, about: About) -> ReportMark:
    # Seconds before the resolution is when it opened, so that a fact alone is enough.
    seconds = told.number("open_duration")
    first = about.at - timedelta(seconds=seconds) if seconds else None
    return ReportMark(
        told.text("report"),
        about.merchant,
        first_at=first,
        resolved_at=about.at,
        open_seconds=seconds or None,
    )


REPORTS: Final[Mapping[str, Callable[[Told, About], ReportMark]]] = {
    "error_reported": lambda told, about: ReportMark(told.text("report"), about.merchant, first_at=about.at),
    "report_resolved": _resolved,
    "report_escalated": lambda told, about: ReportMark(told.text("report"), about.merchant, escalated_at=about.at),
    "report_closed": lambda told, about: ReportMark(told.text("report"), about.merchant, closed_at=about.at),
}
