"""What comes back: the same trouble of a plugin soon after its incident ended continues that incident.

Rule: within a window of its end an incident goes on under its id, in its next round and reopened once more. What was
tried counts, and so does the remedy that had healed it, when the same came back under what that remedy brought; when
something else changed since, it is not to blame. Who was asked once stays in charge, and nobody is asked anew. What an
operator closed is over: the same again is news.

One that came back often enough is flapping. Nothing is tried any more, since what comes and goes by itself makes every
remedy look good, and a restart that seems to help would be done for ever; an operator is asked, once. It stays active
while the plugin is well in between, and ends when it has been calm for a whole window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.ingest.detectors import heartbeat_missed, plugin_away
from services.ingest.finding import Severity
from services.ingest.incident import Evidence, Incident, IncidentEvent, State, Transition, TriedRemedy, later
from services.ingest.incident_lifecycle import closed

# How the remedy that had healed an incident reads in `tried`, once the same came back under it.
RECURRED = "recurred"
# As `incident_lifecycle.OUT_OF_REACH`, once more.
OUT_OF_REACH_AGAIN = {
    heartbeat_missed.TYPE: "the agent is silent again, only a person can help",
    plugin_away.TYPE: "the plugin was stopped again and has not come back, only a person can start it",
}
ENDED = (State.MITIGATED, State.CLOSED)


@dataclass(frozen=True, slots=True)
class Rules:
    """`within` so long after its end it continues (zero: never); after `flapping_at` times it is flapping; `rounds` and
    `act_within` are those of every incident.
    """

    within: timedelta
    flapping_at: int
    rounds: int
    act_within: timedelta


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What is found this time; `generation` and `release` run now. `changing`: they do so only since it was found."""

    severity: Severity
    evidence: Evidence
    bad_since: datetime
    release: str
    generation: int
    changing: bool = False


def continues(incident: Incident, now: datetime, rules: Rules) -> bool:
    """Whether the same, found now, belongs to this incident: it is flapping and calm, or ended just before."""
    if incident.state is State.FLAPPING:
        return incident.calm_time is not None
    if incident.state not in ENDED or incident.end_time is None or incident.closed_by or not rules.within:
        return False
    return now - incident.end_time <= rules.within


def during(incident: Incident, storm: str) -> Incident:
    """The incident as part of the storm that is on now, empty for none: what comes back belongs to that one."""
    return replace(incident, storm=storm, storm_end_time=None)


def came_back(incident: Incident, again: Recurrence, now: datetime, rules: Rules) -> Transition:
    """The incident after the same was found again; unchanged when that does not belong to it."""
    if not continues(incident, now, rules):
        return Transition(incident)
    times = incident.reopened + 1
    begin = later(now, max(filter(None, (incident.end_time, incident.reopen_time, incident.open_time))))
    ill = replace(
        incident,
        severity=max(incident.severity, again.severity),
        evidence=again.evidence,
        first_bad_beat_time=again.bad_since,
        release=again.release,
        generation=again.generation,
        update_time=now,
        reopened=times,
        reopen_time=begin,
        calm_time=None,
        healthy_windows=0,
    )
    if incident.state is State.FLAPPING:
        return Transition(ill, (IncidentEvent.REOPENED,), _again(ill))
    blamed = recurred(incident, again)
    ill = replace(
        ill,
        state=State.OPEN,
        round=incident.round + 1,
        tried=(*incident.tried, blamed) if blamed else incident.tried,
        act_by_time=begin + rules.act_within,
        end_time=None,
        attempt="",
        action=0,
        remedy="",
        resolution="",
        healed_generation=0,
        healed_decision="",
    )
    return replace(_owned(ill, rules), recurred=incident if blamed else None)


def recurred(incident: Incident, again: Recurrence) -> TriedRemedy | None:
    """The remedy that had healed the incident, if what it brought is what the same came back under."""
    if incident.state is not State.MITIGATED or not incident.attempt or not incident.healed_generation:
        return None
    if any(tried.attempt == incident.attempt for tried in incident.tried):
        return None
    if again.changing or again.generation != incident.healed_generation:
        return None
    reason = f"{incident.type} came back under it"
    return TriedRemedy(incident.attempt, incident.action, incident.remedy, RECURRED, reason)


def calmed(incident: Incident, now: datetime, rules: Rules) -> Transition:
    """A flapping incident ends once it has been calm for a whole window."""
    if incident.state is not State.FLAPPING or incident.calm_time is None or now < incident.calm_time + rules.within:
        return Transition(incident)
    minutes = rules.within.total_seconds() / 60
    return closed(incident, f"came back {incident.reopened} times, and is calm for {minutes:.0f} min now", now)


def _owned(incident: Incident, rules: Rules) -> Transition:
    """Who deals with it now that it is open again."""
    again = _again(incident)
    flapping, asked = incident.reopened >= rules.flapping_at, incident.escalate_time is not None
    why = _hand_over_reason(incident, rules, flapping=flapping)
    if flapping or why:
        incident = replace(incident, state=State.FLAPPING if flapping else State.ESCALATED, resolution=why)
    elif asked:
        incident = replace(incident, state=State.ESCALATED, resolution=again)
    if asked or not why:
        return Transition(incident, (IncidentEvent.REOPENED,), again)
    if incident.paused:
        # The storm has asked for all of them; what is left after it is looked at by the sweep.
        state = State.FLAPPING if flapping else State.OPEN
        return Transition(replace(incident, state=state), (IncidentEvent.REOPENED,), again)
    incident = replace(incident, escalate_time=incident.reopen_time)
    return Transition(incident, (IncidentEvent.REOPENED, IncidentEvent.ESCALATED), why)


def _hand_over_reason(incident: Incident, rules: Rules, *, flapping: bool) -> str:
    if flapping:
        return f"flapping: it came back {incident.reopened} times; nothing more is tried"
    if incident.type in OUT_OF_REACH_AGAIN:
        return OUT_OF_REACH_AGAIN[incident.type]
    if incident.round > rules.rounds:
        return f"it came back after {rules.rounds} rounds"
    return ""


def _again(incident: Incident) -> str:
    times = "once" if incident.reopened == 1 else f"{incident.reopened} times"
    return f"came back, {times} by now: {incident.evidence.summary}"
