"""Incidents as resources and as facts; attempts' facts as outcomes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from libs.common import names
from libs.common.facts import fact, fact_name
from prunella.v1 import events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest.finding import Severity
from services.ingest.incident import AttemptOutcome, Evidence, Incident, IncidentEvent, State, Transition, TriedRemedy
from services.ingest.wire.timestamps import span, stamp

SOURCE = "ingest"
# How a fact about an attempt reads in `tried`.
OUTCOMES = {
    "attempt_refused": "refused",
    "attempt_failed": "failed",
    "attempt_cancelled": "cancelled",
    "attempt_rolled_back": "rolled_back",
    "attempt_rollback_failed": "rollback_failed",
    "attempt_unconfirmed": "unconfirmed",
}
# An end and a return have a time of their own.
TAKE_TURNS = frozenset({IncidentEvent.CLOSED, IncidentEvent.MITIGATED, IncidentEvent.REOPENED})
# After these only an operator can decide what to do next.
TO_OPERATOR = frozenset({"attempt_refused", "attempt_rollback_failed", "attempt_unconfirmed"})


def resource(incident: Incident) -> ingest_pb2.Incident:
    """An incident as callers see it."""
    same = (
        "plugin", "merchant", "package", "type", "round", "trace_id", "attempt", "resolution", "release", "storm",
        "reopened",
    )  # fmt: skip
    return ingest_pb2.Incident(
        name=names.incident(incident.id),
        severity=_severity(incident.severity),
        state=str(incident.state),
        open_time=stamp(incident.open_time),
        first_bad_beat_time=stamp(incident.first_bad_beat_time),
        update_time=stamp(incident.update_time),
        end_time=stamp(incident.end_time),
        act_by_time=stamp(incident.due),
        reopen_time=stamp(incident.reopen_time),
        evidence=_evidence(incident.evidence),
        tried=[_tried(tried) for tried in incident.tried],
        **{name: getattr(incident, name) for name in same},
    )


def facts(after: Transition, *, actor: str = "", cause: Event | None = None) -> list[Event]:
    """The facts of a transition, with its reason."""
    incident = after.incident
    made = [
        fact(
            SOURCE,
            _message(event, after),
            actor=actor,
            reason=after.reason or incident.resolution,
            plugin=incident.plugin,
            merchant=incident.merchant,
            incident=incident.id,
            cause=cause,
        )
        for event in after.events
    ]
    # Ends and returns of one incident take turns, also when beats that came together tell of both.
    time = incident.end_time or incident.reopen_time
    if time is not None and TAKE_TURNS.intersection(after.events):
        for event in made:
            event.time.FromDatetime(time)
    return made


def outcome(event: Event) -> AttemptOutcome:
    """What a fact that ends an attempt means for its incident."""
    name = fact_name(event)
    ended = getattr(event, name)
    return AttemptOutcome(
        attempt=ended.attempt,
        round=ended.round,
        outcome=OUTCOMES[name],
        reason=event.reason or getattr(ended, "gate", "") or getattr(ended, "failure", ""),
        action=getattr(ended, "action", 0),
        release=getattr(ended, "to_release", ""),
        # An operator who cancelled an attempt has taken over.
        to_operator=name in TO_OPERATOR or (name == "attempt_cancelled" and event.actor.startswith("operators/")),
    )


def _message(event: IncidentEvent, after: Transition) -> Message:
    incident = after.incident
    if event is IncidentEvent.MITIGATED:
        seconds = ((incident.end_time or incident.update_time) - incident.open_time).total_seconds()
        return events_pb2.IncidentMitigated(
            attempt=incident.attempt,
            round=incident.round,
            open_duration=span(seconds),
            type=incident.type,
            reopened=incident.reopened,
        )
    if event is IncidentEvent.CLOSED:
        known = {name: getattr(incident, name) for name in ("resolution", "type", "reopened")}
        return events_pb2.IncidentClosed(**known, flapping=after.was_flapping, healed_by_itself=after.healed_by_itself)
    about: dict[str, Any] = {"type": incident.type, "severity": _severity(incident.severity), "round": incident.round}
    tried = [_tried(tried) for tried in incident.tried]
    if event is IncidentEvent.ESCALATED:
        return events_pb2.IncidentEscalated(**about, tried=tried)
    about |= {name: getattr(incident, name) for name in ("package", "release", "generation")}
    about |= {"evidence": _evidence(incident.evidence), "act_by_time": stamp(incident.due)}
    if event is IncidentEvent.ROUND_STARTED:
        return events_pb2.IncidentRoundStarted(**about, tried=tried)
    if event is IncidentEvent.REOPENED:
        return events_pb2.IncidentReopened(**about, tried=tried, **_reopening(after))
    return events_pb2.IncidentOpened(**about, first_bad_beat_time=stamp(incident.first_bad_beat_time))


def _reopening(after: Transition) -> dict[str, Any]:
    incident, healed = after.incident, after.recurred
    return {
        "first_bad_beat_time": stamp(incident.first_bad_beat_time),
        "reopened": incident.reopened,
        "flapping": incident.state is State.FLAPPING,
        "escalated": incident.escalate_time is not None and IncidentEvent.ESCALATED not in after.events,
        "recurred_attempt": healed.attempt if healed else "",
        "recurred_decision": healed.healed_decision if healed else "",
    }


def _severity(severity: Severity) -> events_pb2.Severity.ValueType:
    return events_pb2.Severity.ValueType(int(severity))


def _evidence(evidence: Evidence) -> events_pb2.Evidence:
    return events_pb2.Evidence(
        summary=evidence.summary,
        figures=evidence.figures,
        failing_inputs=evidence.failing_inputs,
        environment=evidence.environment,
        config_digest=evidence.config_digest,
    )


def _tried(tried: TriedRemedy) -> events_pb2.TriedRemedy:
    return events_pb2.TriedRemedy(
        action=events_pb2.Action.ValueType(tried.action),
        release=tried.release,
        outcome=tried.outcome,
        reason=tried.reason,
    )
