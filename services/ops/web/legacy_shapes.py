"""Incidents and attempts as the seeds' dashboard knows them: their field names and words, our figures."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from prunella.v1 import decider_pb2, ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Action, Severity

SEVERITIES = ("low", "medium", "high", "critical")
# The seeds know no flapping: a person is in charge of it.
INCIDENT_STATES = {"escalated": ("escalated", "flapping")}
INCIDENT_STATUSES = ("open", "in_progress", "mitigated", "closed", "escalated")
# The seeds' words for where an attempt stands, and ours.
STATUSES: dict[str, tuple[str, ...]] = {
    "pending": ("pending", "awaiting_approval"),
    "staging": ("staging", "staged"),
    "applying": ("applying", "probation", "committing", "rolling_back", "unconfirmed"),
    "success": ("success",),
    "failed": ("failed", "rollback_failed"),
    "rolled_back": ("rolled_back",),
    "cancelled": ("cancelled", "refused"),
}
STATUS = {state: status for status, states in STATUSES.items() for state in states}


def incident(found: ingest_pb2.Incident, decision: decider_pb2.Decision | None) -> dict[str, Any]:
    """A row of `plugin_incidents`."""
    escalated = found.state in INCIDENT_STATES["escalated"]
    return {
        "id": _bare(found.name),
        "merchant_plugin_id": _bare(found.plugin),
        "merchant_id": found.merchant,
        "incident_type": found.type,
        "severity": _word(Severity.Name(found.severity), "SEVERITY_"),
        "detected_at": _time(found.open_time),
        "telemetry_snapshot": dict(found.evidence.figures) | {"summary": found.evidence.summary},
        "sira_decision": _decision(decision) if decision is not None else None,
        "status": "escalated" if escalated else found.state,
        "escalated_to_ops": escalated,
        "escalated_at": _time(found.update_time) if escalated else None,
        "escalation_reason": found.resolution if escalated else None,
        "resolution": found.resolution or None,
        "round": found.round,
        "created_at": _time(found.open_time),
        "updated_at": _time(found.update_time),
    }


def attempt(found: patcher_pb2.Attempt) -> dict[str, Any]:
    """A row of `plugin_autopatch_attempts`; `state` is our own, finer word."""
    status = STATUS.get(found.state, found.state)
    back = status == "rolled_back"
    return {
        "id": _bare(found.name),
        "incident_id": _bare(found.incident) or None,
        "merchant_plugin_id": _bare(found.plugin),
        "from_version": found.from_release,
        "to_version": found.configuration or found.to_release,
        "method": _word(Action.Name(found.action), "ACTION_"),
        "status": status,
        "state": found.state,
        "logs": [_step(step) for step in found.history],
        "staging_result": _staging(found),
        "production_result": _production(found),
        "executed_by": found.author or ("sira" if found.decision else "rollout"),
        "executed_at": _time(found.create_time),
        "rolled_back_at": _time(found.end_time) if back else None,
        "rollback_reason": found.reason if back else None,
        "requires_approval": found.state == "awaiting_approval" or found.HasField("approval"),
        "approved_by": [
            {"user_id": vote.actor, "role": vote.role, "approved_at": _time(vote.time)}
            for vote in found.approval.votes
            if vote.approved
        ],
        "reason": found.reason or None,
        "created_at": _time(found.create_time),
        "updated_at": _time(found.update_time),
    }


def _decision(found: decider_pb2.Decision) -> dict[str, Any]:
    return {
        "action": _word(Action.Name(found.action), "ACTION_"),
        "patch_version": found.release or None,
        "confidence": found.confidence,
        "explanation": found.explanation,
        "origin": found.origin,
    }


def _staging(found: patcher_pb2.Attempt) -> dict[str, Any] | None:
    if not found.HasField("staging"):
        return None
    staging = found.staging
    return {
        "passed": staging.passed,
        "tests_run": staging.tests_run,
        "duration_ms": round(staging.duration.ToTimedelta().total_seconds() * 1000),
        "errors": list(staging.failures),
    }


def _production(found: patcher_pb2.Attempt) -> dict[str, Any] | None:
    if not found.HasField("switch_time"):
        return None
    judged = found.HasField("verdict")
    return {
        "applied_at": _time(found.switch_time),
        "health_check_passed": found.verdict.result == "pass" if judged else None,
        "error_rate_before": found.verdict.error_rate_before if judged else None,
        "error_rate_after": found.verdict.error_rate_after if judged else None,
    }


def _step(step: patcher_pb2.AttemptTransition) -> dict[str, Any]:
    return {"at": _time(step.time), "from": step.from_state, "to": step.to_state, "message": step.reason}


def _time(time: Timestamp) -> str | None:
    text: str = time.ToJsonString()
    return text if time.seconds else None


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _bare(name: str) -> str:
    return name.rpartition("/")[2]
