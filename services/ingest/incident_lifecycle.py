"""What is wrong with one plugin, who deals with it, and how it ends.

Rule: at most one incident per plugin and type is active. While an attempt is live it is in_progress and ends only
through the outcome. A remedy that did not help starts the next round without it; after the last round, or when policy
or the decision says so, or when `act_by_time` passes with nothing in flight, an operator is asked. It closes after
so many healthy windows in a row. Whatever comes late or twice finds its attempt among those that are over, or the
incident ended.

During a storm nobody is asked about each incident, since the storm has paged for all; an attempt that waits for its end
keeps no incident from closing when the plugin is well again. What is left afterwards has its time to act anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from services.ingest.detectors import heartbeat_missed
from services.ingest.finding import Finding, Severity


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    ESCALATED = "escalated"
    MITIGATED = "mitigated"
    CLOSED = "closed"


ACTIVE = (State.OPEN, State.IN_PROGRESS, State.ESCALATED)
# How long after act_by_time an attempt may still be under way before an operator is asked all the same.
GRACE = timedelta(hours=2)


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
            else max(self.act_by_time, self.storm_end_time + (self.act_by_time - self.open_time))
        )

    @property
    def active(self) -> bool:
        """Whether it still keeps others of its type from opening."""
        return self.state in ACTIVE


class IncidentEvent(StrEnum):
    """The facts of an incident; names as in events.proto."""

    OPENED = "incident_opened"
    ROUND_STARTED = "incident_round_started"
    MITIGATED = "incident_mitigated"
    CLOSED = "incident_closed"
    ESCALATED = "incident_escalated"


@dataclass(frozen=True, slots=True)
class Transition:
    """An incident after something happened, with the facts to record and why."""

    incident: Incident
    events: tuple[IncidentEvent, ...] = ()
    reason: str = ""


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


def opened(incident: Incident) -> Transition:
    """A new incident; silence goes to an operator at once, since nobody can reach the plugin."""
    reason = incident.evidence.summary
    if incident.type == heartbeat_missed.TYPE:
        incident = replace(incident, resolution="the agent is silent, only a person can help")
        if not incident.paused:
            return Transition(
                replace(incident, state=State.ESCALATED), (IncidentEvent.OPENED, IncidentEvent.ESCALATED), reason
            )
    return Transition(incident, (IncidentEvent.OPENED,), reason)


def worsened(
    incident: Incident, severity: Severity, evidence: Evidence, now: datetime, *, generation: int | None = None
) -> Transition:
    """It is still there: healthy windows count from nothing again, severity only rises.

    What a remedy does while it is tried (what was counted under another `generation`) is for its verdict to judge; it
    makes the incident it was to heal no worse.
    """
    if incident.attempt and generation not in {None, incident.generation}:
        severity = min(severity, incident.severity)
    if not incident.active or (not incident.healthy_windows and severity <= incident.severity):
        return Transition(incident)
    grown = replace(incident, healthy_windows=0, update_time=now)
    if severity > incident.severity:
        grown = replace(grown, severity=severity, evidence=evidence)
    return Transition(grown)


def improved(incident: Incident, now: datetime, *, enough: int) -> Transition:
    """One healthy window more; it closes when there are enough and no attempt is live."""
    if not incident.active or incident.state is State.IN_PROGRESS:
        return Transition(incident)
    counted = replace(incident, healthy_windows=incident.healthy_windows + 1, update_time=now)
    needed = 1 if incident.type == heartbeat_missed.TYPE else enough
    if counted.healthy_windows < needed:
        return Transition(counted)
    what = "the plugin is heard again" if incident.type == heartbeat_missed.TYPE else f"healthy for {needed} windows"
    return closed(counted, what, now)


def closed(incident: Incident, resolution: str, now: datetime) -> Transition:
    """Ended without an attempt: healthy again, retired, or by an operator."""
    if not incident.active:
        return Transition(incident)
    over = replace(incident, state=State.CLOSED, resolution=resolution, end_time=now, update_time=now, attempt="")
    return Transition(over, (IncidentEvent.CLOSED,), resolution)


def escalated(incident: Incident, reason: str, now: datetime) -> Transition:
    """An operator is asked; healthy windows can still close it."""
    if incident.state not in (State.OPEN, State.IN_PROGRESS):
        return Transition(incident)
    return Transition(
        replace(incident, state=State.ESCALATED, resolution=reason, update_time=now, attempt=""),
        (IncidentEvent.ESCALATED,),
        reason,
    )


def attempt_started(
    incident: Incident, attempt: str, number: int, action: int, release: str, now: datetime
) -> Transition:
    """An attempt is live for this round; one that is already over, or of another round, changes nothing."""
    over = any(tried.attempt == attempt for tried in incident.tried)
    if incident.state is not State.OPEN or number != incident.round or over:
        return Transition(incident)
    known = replace(incident, attempt=attempt, action=action, remedy=release, resolution="", update_time=now)
    if incident.paused:
        # It will be held: until it goes on the plugin may get well by itself.
        return Transition(known)
    return Transition(replace(known, state=State.IN_PROGRESS, healthy_windows=0))


def attempt_held(incident: Incident, attempt: str, now: datetime) -> Transition:
    """The attempt waits for the end of the storm, with nothing applied."""
    if incident.state is not State.IN_PROGRESS or incident.attempt != attempt:
        return Transition(incident)
    return Transition(replace(incident, state=State.OPEN, healthy_windows=0, update_time=now))


def attempt_applying(incident: Incident, attempt: str, now: datetime) -> Transition:
    """The attempt that waited was permitted its switch: from now on only its outcome ends the incident."""
    if incident.state is not State.OPEN or incident.attempt != attempt:
        return Transition(incident)
    return Transition(replace(incident, state=State.IN_PROGRESS, healthy_windows=0, resolution="", update_time=now))


def remedy_failed(
    incident: Incident, outcome: AttemptOutcome, now: datetime, *, rounds: int, runs: tuple[str, int] | None = None
) -> Transition:
    """A remedy did not help: the next round begins without it, or an operator is asked.

    `runs`: release and generation that run by now, where that may have changed; the next round is about them.
    """
    if not incident.active or any(tried.attempt == outcome.attempt for tried in incident.tried):
        return Transition(incident)
    own = incident.attempt == outcome.attempt
    tried = TriedRemedy(
        outcome.attempt,
        outcome.action or (incident.action if own else 0),
        outcome.release or (incident.remedy if own else ""),
        outcome.outcome,
        outcome.reason,
    )
    noted = replace(incident, tried=(*incident.tried, tried), update_time=now)
    if outcome.round != incident.round or incident.state is State.ESCALATED:
        return Transition(noted)
    noted = replace(noted, attempt="", action=0, remedy="", healthy_windows=0)
    why = f"round {incident.round}: {outcome.outcome}, {outcome.reason}"
    if outcome.to_operator:
        return _hand_over(noted, why, now)
    if incident.round >= rounds:
        return _hand_over(noted, f"{why}; {rounds} rounds did not help", now)
    if now >= incident.due and not incident.paused:
        return escalated(noted, f"{why}; too late for another round", now)
    release, generation = runs or (incident.release, incident.generation)
    next_round = replace(noted, state=State.OPEN, round=incident.round + 1, release=release, generation=generation)
    return Transition(next_round, (IncidentEvent.ROUND_STARTED,), why)


def mitigated(incident: Incident, attempt: str, now: datetime) -> Transition:
    """The agent wrote COMMITTED: an attempt healed it, whatever state it stood in."""
    if not incident.active:
        return Transition(incident)
    over = replace(
        incident,
        state=State.MITIGATED,
        attempt=attempt,
        end_time=now,
        update_time=now,
        resolution="healed by an attempt",
    )
    return Transition(over, (IncidentEvent.MITIGATED,), "verified healed")


def declined(incident: Incident, number: int, reason: str, now: datetime) -> Transition:
    """The decision for this round is to ask operators or to do nothing."""
    if incident.state is not State.OPEN or number != incident.round:
        return Transition(incident)
    return _hand_over(incident, reason, now)


def overdue(incident: Incident, now: datetime) -> Transition:
    """An operator is asked who was not to be during a storm, or when the time to act has passed with nothing in flight;
    with an attempt under way after two hours more.
    """
    if incident.paused:
        return Transition(incident)
    if incident.state is State.OPEN and incident.resolution:
        return escalated(incident, incident.resolution, now)
    if incident.state is State.OPEN and now >= incident.due:
        return escalated(incident, "nothing was under way when the time to act had passed", now)
    if incident.state is State.IN_PROGRESS and now >= incident.due + GRACE:
        return escalated(incident, "the attempt has not ended long after the time to act", now)
    return Transition(incident)


def _hand_over(incident: Incident, reason: str, now: datetime) -> Transition:
    if not incident.paused:
        return escalated(incident, reason, now)
    return Transition(replace(incident, state=State.OPEN, attempt="", resolution=reason, update_time=now))


def tried_from(rows: list[dict[str, Any]]) -> tuple[TriedRemedy, ...]:
    """Remedies as stored."""
    return tuple(TriedRemedy(**row) for row in rows)
