"""An incident as it is stored: what is wrong with one plugin, since when, and who deals with it.

How it moves is in `incident_lifecycle` and, once it came back, in `reopening`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from services.ingest.detectors import agent_degraded
from services.ingest.finding import Finding, Severity


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    ESCALATED = "escalated"
    FLAPPING = "flapping"
    MITIGATED = "mitigated"
    CLOSED = "closed"


ACTIVE = (State.OPEN, State.IN_PROGRESS, State.ESCALATED, State.FLAPPING)
WITH_OPERATOR = (State.ESCALATED, State.FLAPPING)
# Types whose summary is what a person has to do: it says what is there now, not what was there at first.
TOLD_ANEW = frozenset({agent_degraded.TYPE})


@dataclass(frozen=True, slots=True)
class Owner:
    """Who moves an incident out of a state, by when, and what happens if nobody does."""

    owner: str
    deadline: str
    next: State | None


# No state without an owner and an end; the sweep reads the deadlines.
OWNERS: dict[State, Owner] = {
    State.OPEN: Owner("decider, then patcher", "act_by", State.ESCALATED),
    State.IN_PROGRESS: Owner("patcher", "act_by + 2 h", State.ESCALATED),
    State.ESCALATED: Owner("an operator", "healthy windows, retirement or their decision", State.CLOSED),
    State.FLAPPING: Owner("an operator", "calm for a while, retirement or their decision", State.CLOSED),
    State.MITIGATED: Owner("nobody", "it is over", None),
    State.CLOSED: Owner("nobody", "it is over", None),
}


@dataclass(frozen=True, slots=True)
class TriedRemedy:
    """A remedy that did not heal this incident. `action` is a number of the protos."""

    attempt: str
    action: int
    release: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The figures behind an incident."""

    summary: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    failing_inputs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    config_digest: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident; `attempt` is the live one, with the remedy it tries."""

    id: str
    plugin: str
    merchant: str
    package: str
    type: str
    severity: Severity
    state: State
    round: int
    open_time: datetime
    first_bad_beat_time: datetime
    update_time: datetime
    act_by_time: datetime
    end_time: datetime | None = None
    attempt: str = ""
    # Whether that attempt was permitted to switch; before that the plugin runs what fell ill.
    permitted: bool = False
    action: int = 0
    remedy: str = ""
    tried: tuple[TriedRemedy, ...] = ()
    evidence: Evidence = Evidence()
    release: str = ""
    generation: int = 0
    healthy_windows: int = 0
    resolution: str = ""
    trace_id: str = ""
    traceparent: str = ""
    # The storm it is part of, and since when that is over.
    storm: str = ""
    storm_end_time: datetime | None = None
    # How often it came back, when last, and since when it is calm while flapping.
    reopened: int = 0
    reopen_time: datetime | None = None
    calm_time: datetime | None = None
    # When an operator was asked first; the operator who closed it.
    escalate_time: datetime | None = None
    closed_by: str = ""
    # What runs since an attempt healed it, and the decision behind that attempt.
    healed_generation: int = 0
    healed_decision: str = ""

    @property
    def paused(self) -> bool:
        """Whether the storm it is part of is ongoing."""
        return bool(self.storm) and self.storm_end_time is None

    @property
    def due(self) -> datetime:
        """When an operator is asked if nothing is under way; after a storm as long as it had at its opening."""
        return (
            self.act_by_time
            if self.storm_end_time is None
            else max(self.act_by_time, self.storm_end_time + (self.act_by_time - self.begin_time))
        )

    @property
    def begin_time(self) -> datetime:
        """When it began or came back last."""
        return self.reopen_time or self.open_time

    @property
    def active(self) -> bool:
        """Whether it still keeps others of its type from opening."""
        return self.state in ACTIVE

    @property
    def ill(self) -> bool:
        """Whether the plugin suffers from it now: a flapping one is active while it is calm, too."""
        return self.active and self.calm_time is None

    def is_news(self, severity: Severity, summary: str) -> bool:
        """Whether a finding says more than its evidence does."""
        return severity > self.severity or (self.type in TOLD_ANEW and summary != self.evidence.summary)


class IncidentEvent(StrEnum):
    """The facts of an incident; names as in events.proto."""

    OPENED = "incident_opened"
    ROUND_STARTED = "incident_round_started"
    MITIGATED = "incident_mitigated"
    CLOSED = "incident_closed"
    ESCALATED = "incident_escalated"
    REOPENED = "incident_reopened"


@dataclass(frozen=True, slots=True)
class Transition:
    """An incident after something happened, with the facts to record and why.

    `recurred`: the incident as an attempt had healed it, when the same came back under what that attempt brought.
    """

    incident: Incident
    events: tuple[IncidentEvent, ...] = ()
    reason: str = ""
    # It ended because the plugin got well without a remedy.
    healed_by_itself: bool = False
    was_flapping: bool = False
    recurred: Incident | None = None


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """How an attempt ended: over for its round, with what it tried."""

    attempt: str
    round: int
    outcome: str
    reason: str
    action: int = 0
    release: str = ""
    to_operator: bool = False


def new_incident(
    id_: str, finding: Finding, now: datetime, bad_since: datetime, *, act_within: timedelta, **known: Any
) -> Incident:
    """The incident of a finding, in its first round; `known` holds the other fields, the plugin's among them."""
    return Incident(
        id=id_,
        type=finding.type,
        severity=finding.severity,
        state=State.OPEN,
        round=1,
        open_time=now,
        first_bad_beat_time=bad_since,
        update_time=now,
        act_by_time=now + act_within,
        **known,
    )


def tried_from(rows: list[dict[str, Any]]) -> tuple[TriedRemedy, ...]:
    """Remedies as stored."""
    return tuple(TriedRemedy(**row) for row in rows)


def later(now: datetime, than: datetime | None) -> datetime:
    """Now, or just after a time that is not before it: beginnings and ends of one incident take turns."""
    return now if than is None else max(now, than + timedelta(microseconds=1))
