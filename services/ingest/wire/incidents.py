"""Incidents as resources and as facts; attempts' facts as outcomes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from libs.common import names
from libs.common.facts import fact, fact_name
from prunella.v1 import events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest.finding import Severity
from services.ingest.incident_lifecycle import (
    AttemptOutcome,
    Evidence,
    Incident,
    IncidentEvent,
    Transition,
    TriedRemedy,
)
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
# After these only an operator can decide what to do next.
TO_OPERATOR = frozenset({"attempt_refused", "attempt_rollback_failed", "attempt_unconfirmed"})


def resource(incident: Incident) -> ingest_pb2.Incident:
    """An incident as callers see it."""
    same = (
        "plugin", "merchant", "package", "type", "round", "trace_id", "attempt", "resolution", "release", "storm"
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
        evidence=_evidence(incident.evidence),
        tried=[_tried(tried) for tried in incident.tried],
        **{name: getattr(incident, name) for name in same},
    )


def facts(after: Transition, *, actor: str = "", cause: Event | None = None) -> list[Event]:
    """The facts of a transition, with its reason."""
    incident = after.incident
    return [
        fact(
            SOURCE,
            _message(event, incident),
            actor=actor,
            reason=after.reason or incident.resolution,
            plugin=incident.plugin,
            merchant=incident.merchant,
            incident=incident.id,
            cause=cause,
        )
        for event in after.events
    ]


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


def _message(event: IncidentEvent, incident: Incident) -> Message:
    if event is IncidentEvent.MITIGATED:
        seconds = ((incident.end_time or incident.update_time) - incident.open_time).total_seconds()
        return events_pb2.IncidentMitigated(attempt=incident.attempt, round=incident.round, open_duration=span(seconds))
    if event is IncidentEvent.CLOSED:
        return events_pb2.IncidentClosed(resolution=incident.resolution)
    about: dict[str, Any] = {"type": incident.type, "severity": _severity(incident.severity), "round": incident.round}
    tried = [_tried(tried) for tried in incident.tried]
    if event is IncidentEvent.ESCALATED:
        return events_pb2.IncidentEscalated(**about, tried=tried)
    about |= {name: getattr(incident, name) for name in ("package", "release", "generation")}
    about |= {"evidence": _evidence(incident.evidence), "act_by_time": stamp(incident.due)}
    if event is IncidentEvent.ROUND_STARTED:
        return events_pb2.IncidentRoundStarted(**about, tried=tried)
    return events_pb2.IncidentOpened(**about, first_bad_beat_time=stamp(incident.first_bad_beat_time))


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
