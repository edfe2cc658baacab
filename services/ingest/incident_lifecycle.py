"""What is wrong with one plugin, who deals with it, and how it ends.

Rule: at most one incident per plugin and type is active. While an attempt is live it is in_progress. What the plugin
did before the attempt's switch still counts: well for long enough it is healed by itself, however long its remedy waits
for a gate, an approval or the agent; from the permit to switch on only the outcome ends it. A remedy that did not help
starts the next round without it; after the last round, or when policy or the decision says so, or when `act_by_time`
passes with nothing in flight, an operator is asked. It closes after so many healthy windows in a row. Whatever comes
late or twice finds its attempt among those that are over, or the incident ended.

What comes back soon after its end continues its incident; what comes back again and again is flapping (`reopening`).

During a storm nobody is asked about each incident, since the storm has paged for all; an attempt that waits for its end
keeps no incident from closing when the plugin is well again. What is left afterwards has its time to act anew.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.ingest.detectors import agent_degraded, heartbeat_missed, plugin_away
from services.ingest.finding import Severity
from services.ingest.incident import (
    WITH_OPERATOR,
    AttemptOutcome,
    Evidence,
    Incident,
    IncidentEvent,
    State,
    Transition,
    TriedRemedy,
    later,
)

# Types that nobody can reach the plugin to heal, so an operator is asked at once, and why.
OUT_OF_REACH = {
    heartbeat_missed.TYPE: "the agent is silent, only a person can help",
    plugin_away.TYPE: "the plugin was stopped and has not come back, only a person can start it",
}
# Types that one beat ends, since it says outright what the others have to gather, and what it says.
ENDED_BY_ONE_BEAT = {
    heartbeat_missed.TYPE: "the plugin is heard again",
    plugin_away.TYPE: "the plugin is back",
    agent_degraded.TYPE: "nothing hinders the agent any more",
}
# How long after act_by_time an attempt may still be under way before an operator is asked all the same.
GRACE = timedelta(hours=2)


def opened(incident: Incident) -> Transition:
    """A new incident; silence goes to an operator at once, since nobody can reach the plugin."""
    reason = incident.evidence.summary
    if incident.type in OUT_OF_REACH:
        incident = replace(incident, resolution=OUT_OF_REACH[incident.type])
        if not incident.paused:
            asked = replace(incident, state=State.ESCALATED, escalate_time=incident.open_time)
            return Transition(asked, (IncidentEvent.OPENED, IncidentEvent.ESCALATED), reason)
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
    news = incident.is_news(severity, evidence.summary)
    if not incident.active or (not incident.healthy_windows and not news):
        return Transition(incident)
    grown = replace(incident, healthy_windows=0, update_time=now)
    if news:
        grown = replace(grown, severity=max(severity, incident.severity), evidence=evidence)
    return Transition(grown)


def improved(incident: Incident, now: datetime, *, enough: int) -> Transition:
    """One healthy window more; with enough of them it closes when no attempt has its permit to switch.

    A flapping one is calm then.
    """
    if not incident.ill or incident.permitted:
        return Transition(incident)
    counted = replace(incident, healthy_windows=incident.healthy_windows + 1, update_time=now)
    outright = ENDED_BY_ONE_BEAT.get(incident.type)
    needed = 1 if outright else enough
    if counted.healthy_windows < needed:
        return Transition(counted)
    if incident.state is State.FLAPPING:
        return Transition(replace(counted, healthy_windows=0, calm_time=now))
    what = outright or f"healthy for {needed} windows"
    return replace(closed(counted, what, now), healed_by_itself=True)


def closed(incident: Incident, resolution: str, now: datetime, *, by: str = "") -> Transition:
    """Ended without an attempt: healthy again, retired, or by an operator (`by`)."""
    if not incident.active:
        return Transition(incident)
    over = replace(incident, state=State.CLOSED, resolution=resolution, closed_by=by, update_time=now)
    over = replace(over, end_time=later(now, incident.reopen_time), calm_time=None)
    over = replace(over, attempt="", permitted=False)
    return Transition(over, (IncidentEvent.CLOSED,), resolution, was_flapping=incident.state is State.FLAPPING)


def escalated(incident: Incident, reason: str, now: datetime) -> Transition:
    """An operator is asked; healthy windows can still close it."""
    if incident.state not in (State.OPEN, State.IN_PROGRESS):
        return Transition(incident)
    asked = replace(incident, escalate_time=incident.escalate_time or now, update_time=now, attempt="", permitted=False)
    return Transition(replace(asked, state=State.ESCALATED, resolution=reason), (IncidentEvent.ESCALATED,), reason)


def attempt_started(
    incident: Incident, attempt: str, number: int, action: int, release: str, now: datetime
) -> Transition:
    """An attempt is live for this round; one that is already over, or of another round, changes nothing."""
    over = any(tried.attempt == attempt for tried in incident.tried)
    begun = incident.state is State.IN_PROGRESS and incident.permitted and incident.attempt == attempt
    if not (incident.state is State.OPEN or begun) or number != incident.round or over:
        return Transition(incident)
    # The fact of its permit may have come before this one.
    permitted = incident.permitted and incident.attempt == attempt
    known = replace(incident, attempt=attempt, permitted=permitted, action=action, remedy=release, resolution="")
    known = replace(known, update_time=now)
    if incident.paused and not permitted:
        # It will be held, and nobody has to be asked about it until the storm is over.
        return Transition(known)
    return Transition(replace(known, state=State.IN_PROGRESS))


def attempt_held(incident: Incident, attempt: str, now: datetime) -> Transition:
    """The attempt waits for the end of the storm, with nothing applied."""
    if incident.state is not State.IN_PROGRESS or incident.attempt != attempt:
        return Transition(incident)
    return Transition(replace(incident, state=State.OPEN, update_time=now))


def attempt_permitted(incident: Incident, attempt: str, now: datetime) -> Transition:
    """The attempt was permitted its switch: from now on only its outcome ends the incident.

    The attempt may not be known yet, since its facts come in any order.
    """
    over = any(tried.attempt == attempt for tried in incident.tried)
    if incident.state not in (State.OPEN, State.IN_PROGRESS) or incident.attempt not in ("", attempt) or over:
        return Transition(incident)
    known = replace(incident, attempt=attempt, permitted=True, state=State.IN_PROGRESS, resolution="")
    return Transition(replace(known, healthy_windows=0, update_time=now))


def remedy_failed(
    incident: Incident, outcome: AttemptOutcome, now: datetime, *, rounds: int, runs: tuple[str, int] | None = None
) -> Transition:
    """A remedy did not help: the next round begins without it, or an operator is asked.

    `runs`: release and generation that run by now, where that may have changed; the next round is about them.
    """
    if not incident.active or any(tried.attempt == outcome.attempt for tried in incident.tried):
        return Transition(incident)
    if outcome.round < incident.round and outcome.outcome == "cancelled":
        # It was called off when the plugin was well again: nothing was tried.
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
    if outcome.round != incident.round or incident.state in WITH_OPERATOR:
        return Transition(noted)
    noted = replace(noted, attempt="", permitted=False, action=0, remedy="", healthy_windows=0)
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


def mitigated(
    incident: Incident,
    attempt: str,
    now: datetime,
    *,
    generation: int = 0,
    decision: str = "",
    low_evidence: bool = False,
) -> Transition:
    """The agent wrote COMMITTED: an attempt healed it, whatever state it stood in; with low evidence as far as seen.

    `generation`: what runs since. What was committed on low evidence its watch judges, not what comes back.
    """
    if not incident.active:
        return Transition(incident)
    over = replace(
        incident,
        state=State.MITIGATED,
        attempt=attempt,
        end_time=later(now, incident.reopen_time),
        update_time=now,
        resolution="healed by an attempt",
        calm_time=None,
        healed_generation=0 if low_evidence else generation,
        healed_decision="" if low_evidence else decision,
    )
    reason = "nothing is wrong any more, on low evidence: it is watched on" if low_evidence else "verified healed"
    return Transition(over, (IncidentEvent.MITIGATED,), reason)


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
    if incident.state is State.FLAPPING and incident.escalate_time is None:
        asked = replace(incident, escalate_time=now, update_time=now)
        return Transition(asked, (IncidentEvent.ESCALATED,), incident.resolution)
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
    return Transition(
        replace(incident, state=State.OPEN, attempt="", permitted=False, resolution=reason, update_time=now)
    )
