"""The only file of the decider that sees both protobuf and dataclass; it parses, or raises Invalid naming the field."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from libs.common.beta_posterior import Outcomes
from libs.common.errors import Invalid
from libs.common.names import decision as decision_name
from prunella.v1 import decider_pb2, events_pb2
from services.decider.decision import Candidate, Decision, DecisionInputs, Remedy, Tried

SEVERITIES = {
    events_pb2.SEVERITY_LOW: "low",
    events_pb2.SEVERITY_MEDIUM: "medium",
    events_pb2.SEVERITY_HIGH: "high",
    events_pb2.SEVERITY_CRITICAL: "critical",
}
SEVERITY_NUMBERS = {word: number for number, word in SEVERITIES.items()}
ACTIONS = {
    "patch": events_pb2.ACTION_PATCH,
    "config_fix": events_pb2.ACTION_CONFIG_FIX,
    "rollback": events_pb2.ACTION_ROLLBACK,
    "restart": events_pb2.ACTION_RESTART,
    "notify_ops": events_pb2.ACTION_NOTIFY_OPS,
    "no_action": events_pb2.ACTION_NO_ACTION,
}
ACTION_WORDS = {number: word for word, number in ACTIONS.items()}
MOST_TRIED = 100
LONGEST = 200


def inputs_of(event: events_pb2.Event) -> DecisionInputs:
    """The inputs in incident_opened, incident_round_started or incident_reopened."""
    if event.HasField("incident_opened"):
        return _inputs(event.incident_opened, event.incident_opened.evidence, ())
    reopened = event.HasField("incident_reopened")
    started = event.incident_reopened if reopened else event.incident_round_started
    return _inputs(started, started.evidence, started.tried)


def _inputs(
    message: events_pb2.IncidentOpened | events_pb2.IncidentRoundStarted | events_pb2.IncidentReopened,
    evidence: events_pb2.Evidence,
    tried: Iterable[events_pb2.TriedRemedy],
) -> DecisionInputs:
    return DecisionInputs(
        symptom=message.type,
        severity=SEVERITIES.get(message.severity, "low"),
        package=message.package,
        release=message.release,
        round=max(1, message.round),
        generation=message.generation,
        summary=evidence.summary,
        figures={name: value for name, value in evidence.figures.items() if math.isfinite(value)},
        failing_inputs=tuple(evidence.failing_inputs),
        environment=dict(evidence.environment),
        config_digest=evidence.config_digest,
        tried=tuple(_tried(entry) for entry in tried),
        act_by=_datetime(message.act_by_time) if message.HasField("act_by_time") else None,
    )


def _tried(entry: events_pb2.TriedRemedy) -> Tried:
    return Tried(ACTION_WORDS.get(entry.action, ""), entry.release, entry.outcome, entry.reason)


@dataclass(frozen=True)
class AttemptEnd:
    """What a fact that ends an attempt says; `failure` and `dead_man` where the fact has them."""

    attempt: str
    decision: str
    failure: str
    dead_man: bool
    low_evidence: bool = False


def attempt_ended(event: events_pb2.Event) -> AttemptEnd:
    """The common part of the facts that end an attempt, and of what came back after one."""
    if event.HasField("incident_reopened"):
        again = event.incident_reopened
        return AttemptEnd(again.recurred_attempt, again.recurred_decision, "", dead_man=False)
    message = getattr(event, event.WhichOneof("fact") or "")
    return AttemptEnd(
        message.attempt,
        message.decision,
        getattr(message, "failure", "") or getattr(message, "outcome", ""),
        getattr(message, "dead_man", False),
        event.attempt_succeeded.verdict.low_evidence,
    )


def preview_inputs(request: decider_pb2.PreviewDecisionRequest) -> DecisionInputs:
    """The inputs of a preview. Raises Invalid."""
    for field in ("type", "package", "release"):
        value = getattr(request, field)
        if not value or len(value) > LONGEST:
            raise Invalid(
                f"{field} must be a text of 1 to {LONGEST} characters",
                reason="BAD_INPUTS",
                field=field,
                value=value[:40],
            )
    if len(request.tried) > MOST_TRIED:
        raise Invalid(f"tried may hold {MOST_TRIED} remedies", reason="BAD_INPUTS", field="tried")
    for name, value in request.evidence.figures.items():
        if not math.isfinite(value):
            raise Invalid(f"figure {name} must be a finite number", reason="BAD_INPUTS", field="evidence", figure=name)
    return DecisionInputs(
        symptom=request.type,
        severity=SEVERITIES.get(request.severity, "medium"),
        package=request.package,
        release=request.release,
        summary=request.evidence.summary,
        figures=dict(request.evidence.figures),
        environment=dict(request.evidence.environment),
        tried=tuple(_tried(entry) for entry in request.tried),
    )


def decision_made(decision: Decision) -> events_pb2.DecisionMade:
    """The fact of a made decision."""
    inputs, chosen = decision.inputs, decision.choice.chosen
    made = events_pb2.DecisionMade(
        decision=decision.id,
        round=inputs.round,
        action=_action(chosen.remedy.action),
        release=chosen.remedy.release,
        confidence=chosen.confidence,
        explanation=decision.choice.explanation,
        origin=chosen.origin.value,
        propensity=chosen.propensity,
        type=inputs.symptom,
        severity=_severity(inputs.severity),
        package=inputs.package,
        from_release=inputs.release,
        generation=inputs.generation,
        evidence=events_pb2.Evidence(
            summary=inputs.summary,
            figures=inputs.figures,
            failing_inputs=inputs.failing_inputs,
            environment=inputs.environment,
            config_digest=inputs.config_digest,
        ),
    )
    if inputs.act_by:
        made.act_by_time.FromDatetime(inputs.act_by)
    return made


def decision(stored: Decision) -> decider_pb2.Decision:
    """A decision as callers see it."""
    chosen = stored.choice.chosen
    message = decider_pb2.Decision(
        name=decision_name(stored.id) if stored.id else "",
        incident=stored.incident,
        plugin=stored.plugin,
        round=stored.inputs.round,
        state=stored.state.value,
        action=_action(chosen.remedy.action),
        release=chosen.remedy.release,
        confidence=chosen.confidence,
        propensity=chosen.propensity,
        origin=chosen.origin.value,
        explanation=stored.choice.explanation,
        candidates=[_candidate(candidate) for candidate in stored.choice.candidates],
        versions=stored.versions,
        features=stored.features,
        trace_id=stored.traceparent.split("-")[1] if stored.traceparent.count("-") == 3 else "",
        create_time=_timestamp(stored.create_time),
    )
    if stored.decide_time:
        message.decide_time.CopyFrom(_timestamp(stored.decide_time))
    return message


def _candidate(candidate: Candidate) -> decider_pb2.Candidate:
    return decider_pb2.Candidate(
        action=_action(candidate.remedy.action),
        release=candidate.remedy.release,
        origin=candidate.origin.value,
        score=candidate.score,
        confidence=candidate.confidence,
        propensity=candidate.propensity,
        explanation=candidate.why,
        excluded=candidate.excluded,
    )


def outcomes(remedy: Remedy, found: Outcomes) -> decider_pb2.Outcomes:
    """Outcomes of one remedy as callers see them."""
    return decider_pb2.Outcomes(
        action=_action(remedy.action),
        release=remedy.release,
        successes=found.successes,
        failures=found.failures,
        lower_bound=found.confidence,
    )


def _action(word: str) -> events_pb2.Action.ValueType:
    # A candidate may carry a word of SIRA that we do not know; it is never chosen.
    return ACTIONS.get(word, events_pb2.ACTION_UNSPECIFIED)


def _severity(word: str) -> events_pb2.Severity.ValueType:
    return SEVERITY_NUMBERS.get(word, events_pb2.SEVERITY_UNSPECIFIED)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _datetime(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
