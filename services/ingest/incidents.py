"""What is wrong with one plugin, who deals with it, and how it ends.

Rule: at most one incident per plugin and type is active. While an attempt is live it is in_progress and ends only
through the outcome. A remedy that did not help starts the next round without it; after the last round, or when policy
or the decision says so, or when `act_by` passes with nothing in flight, a person is asked. It closes after so many
healthy windows in a row. Whatever comes late or twice finds its attempt among those that are over, or the incident
ended.

During a storm nobody is asked about each incident, since the storm has paged for all; an attempt that waits for its end
keeps no incident from closing when the plugin is well again. What is left afterwards has its time to act anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from services.ingest.detection import HEARTBEAT_MISSED, Severity


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    ESCALATED = "escalated"
    MITIGATED = "mitigated"
    CLOSED = "closed"


ACTIVE = (State.OPEN, State.IN_PROGRESS, State.ESCALATED)
# How long after act_by an attempt may still be under way before a person is asked all the same.
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
    State.ESCALATED: Owner("a person", "healthy windows, retirement or their word", State.CLOSED),
    State.MITIGATED: Owner("nobody", "it is over", None),
    State.CLOSED: Owner("nobody", "it is over", None),
}


@dataclass(frozen=True, slots=True)
class Tried:
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
    act_by: datetime
    end_time: datetime | None = None
    attempt: str = ""
    action: int = 0
    remedy: str = ""
    tried: tuple[Tried, ...] = ()
    evidence: Evidence = Evidence()
    release: str = ""
    generation: int = 0
    healthy_windows: int = 0
    resolution: str = ""
    trace_id: str = ""
    traceparent: str = ""
    # The storm it is part of, and since when that is over.
    storm: str = ""
    calm_time: datetime | None = None

    @property
    def paused(self) -> bool:
        """Whether the storm it is part of rages."""
        return bool(self.storm) and self.calm_time is None

    @property
    def due(self) -> datetime:
        """When a person is asked if nothing is under way; after a storm as long as it had at its opening."""
        return max(self.act_by, self.calm_time + (self.act_by - self.open_time)) if self.calm_time else self.act_by

    @property
    def active(self) -> bool:
        """Whether it still keeps others of its type from opening."""
        return self.state in ACTIVE


class Told(StrEnum):
    """The facts an incident tells; names as in events.proto."""

    OPENED = "incident_opened"
    ROUND_STARTED = "incident_round_started"
    MITIGATED = "incident_mitigated"
    CLOSED = "incident_closed"
    ESCALATED = "incident_escalated"


@dataclass(frozen=True, slots=True)
class Step:
    """An incident after something happened, with the facts to tell and why."""

    incident: Incident
    told: tuple[Told, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: over for its round, with what it tried."""

    attempt: str
    round: int
    outcome: str
    reason: str
    action: int = 0
    release: str = ""
    to_person: bool = False


def opened(incident: Incident) -> Step:
    """A new incident; silence goes to a person at once, since nobody can reach the plugin."""
    reason = incident.evidence.summary
    if incident.type == HEARTBEAT_MISSED:
        incident = replace(incident, resolution="the agent is silent, only a person can help")
        if not incident.paused:
            return Step(replace(incident, state=State.ESCALATED), (Told.OPENED, Told.ESCALATED), reason)
    return Step(incident, (Told.OPENED,), reason)


def worsened(
    incident: Incident, severity: Severity, evidence: Evidence, now: datetime, *, generation: int | None = None
) -> Step:
    """It is still there: healthy windows count from nothing again, severity only rises.

    What a remedy does while it is tried (what was counted under another `generation`) is for its verdict to judge; it
    makes the incident it was to heal no worse.
    """
    if incident.attempt and generation not in {None, incident.generation}:
        severity = min(severity, incident.severity)
    if not incident.active or (not incident.healthy_windows and severity <= incident.severity):
        return Step(incident)
    grown = replace(incident, healthy_windows=0, update_time=now)
    if severity > incident.severity:
        grown = replace(grown, severity=severity, evidence=evidence)
    return Step(grown)


def eased(incident: Incident, windows: int, now: datetime, *, enough: int) -> Step:
    """So many healthy windows more; it closes when there are enough and no attempt is live."""
    if not incident.active or incident.state is State.IN_PROGRESS:
        return Step(incident)
    counted = replace(incident, healthy_windows=incident.healthy_windows + windows, update_time=now)
    needed = 1 if incident.type == HEARTBEAT_MISSED else enough
    if counted.healthy_windows < needed:
        return Step(counted)
    what = "the plugin is heard again" if incident.type == HEARTBEAT_MISSED else f"healthy for {needed} windows"
    return closed(counted, what, now)


def closed(incident: Incident, resolution: str, now: datetime) -> Step:
    """Ended without an attempt: healthy again, retired, or by a person."""
    if not incident.active:
        return Step(incident)
    over = replace(incident, state=State.CLOSED, resolution=resolution, end_time=now, update_time=now, attempt="")
    return Step(over, (Told.CLOSED,), resolution)


def escalated(incident: Incident, reason: str, now: datetime) -> Step:
    """A person is asked; healthy windows can still close it."""
    if incident.state not in (State.OPEN, State.IN_PROGRESS):
        return Step(incident)
    return Step(
        replace(incident, state=State.ESCALATED, resolution=reason, update_time=now, attempt=""),
        (Told.ESCALATED,),
        reason,
    )


def begun(incident: Incident, attempt: str, number: int, action: int, release: str, now: datetime) -> Step:
    """An attempt is live for this round; one that is already over, or of another round, changes nothing."""
    over = any(tried.attempt == attempt for tried in incident.tried)
    if incident.state is not State.OPEN or number != incident.round or over:
        return Step(incident)
    known = replace(incident, attempt=attempt, action=action, remedy=release, resolution="", update_time=now)
    if incident.paused:
        # It will be held: until it goes on the plugin may get well by itself.
        return Step(known)
    return Step(replace(known, state=State.IN_PROGRESS, healthy_windows=0))


def held(incident: Incident, attempt: str, now: datetime) -> Step:
    """The attempt waits for the end of the storm, with nothing applied."""
    if incident.state is not State.IN_PROGRESS or incident.attempt != attempt:
        return Step(incident)
    return Step(replace(incident, state=State.OPEN, healthy_windows=0, update_time=now))


def applying(incident: Incident, attempt: str, now: datetime) -> Step:
    """The attempt that waited was permitted its switch: from now on only its outcome ends the incident."""
    if incident.state is not State.OPEN or incident.attempt != attempt:
        return Step(incident)
    return Step(replace(incident, state=State.IN_PROGRESS, healthy_windows=0, resolution="", update_time=now))


def missed(
    incident: Incident, outcome: Outcome, now: datetime, *, rounds: int, runs: tuple[str, int] | None = None
) -> Step:
    """A remedy did not help: the next round begins without it, or a person is asked.

    `runs`: release and generation that run by now, where that may have changed; the next round is about them.
    """
    if not incident.active or any(tried.attempt == outcome.attempt for tried in incident.tried):
        return Step(incident)
    own = incident.attempt == outcome.attempt
    tried = Tried(
        outcome.attempt,
        outcome.action or (incident.action if own else 0),
        outcome.release or (incident.remedy if own else ""),
        outcome.outcome,
        outcome.reason,
    )
    noted = replace(incident, tried=(*incident.tried, tried), update_time=now)
    if outcome.round != incident.round or incident.state is State.ESCALATED:
        return Step(noted)
    noted = replace(noted, attempt="", action=0, remedy="", healthy_windows=0)
    why = f"round {incident.round}: {outcome.outcome}, {outcome.reason}"
    if outcome.to_person:
        return _hand_over(noted, why, now)
    if incident.round >= rounds:
        return _hand_over(noted, f"{why}; {rounds} rounds did not help", now)
    if now >= incident.due and not incident.paused:
        return escalated(noted, f"{why}; too late for another round", now)
    release, generation = runs or (incident.release, incident.generation)
    begun_anew = replace(noted, state=State.OPEN, round=incident.round + 1, release=release, generation=generation)
    return Step(begun_anew, (Told.ROUND_STARTED,), why)


def mitigated(incident: Incident, attempt: str, now: datetime) -> Step:
    """The agent wrote COMMITTED: an attempt healed it, whatever state it stood in."""
    if not incident.active:
        return Step(incident)
    over = replace(
        incident,
        state=State.MITIGATED,
        attempt=attempt,
        end_time=now,
        update_time=now,
        resolution="healed by an attempt",
    )
    return Step(over, (Told.MITIGATED,), "verified healed")


def declined(incident: Incident, number: int, reason: str, now: datetime) -> Step:
    """The decision for this round is to ask people or to do nothing."""
    if incident.state is not State.OPEN or number != incident.round:
        return Step(incident)
    return _hand_over(incident, reason, now)


def overdue(incident: Incident, now: datetime) -> Step:
    """A person is asked who was not to be during a storm, or whose time to act has passed with nothing in flight; with
    an attempt under way after two hours more.
    """
    if incident.paused:
        return Step(incident)
    if incident.state is State.OPEN and incident.resolution:
        return escalated(incident, incident.resolution, now)
    if incident.state is State.OPEN and now >= incident.due:
        return escalated(incident, "nothing was under way when the time to act had passed", now)
    if incident.state is State.IN_PROGRESS and now >= incident.due + GRACE:
        return escalated(incident, "the attempt has not ended long after the time to act", now)
    return Step(incident)


def _hand_over(incident: Incident, reason: str, now: datetime) -> Step:
    if not incident.paused:
        return escalated(incident, reason, now)
    return Step(replace(incident, state=State.OPEN, attempt="", resolution=reason, update_time=now))


def tried_from(rows: list[dict[str, Any]]) -> tuple[Tried, ...]:
    """Remedies as stored."""
    return tuple(Tried(**row) for row in rows)
