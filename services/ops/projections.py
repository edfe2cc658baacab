"""Projections: what one fact adds to the rows that stories, figures and the overview are read from.

Rule: an update holds only what its fact says and leaves the rest empty. Updates of one row are merged by least, by
most, or by the latest (services/ops/store/projections.py), so any order and any number of repeats makes the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from services.ops import severity
from services.ops.attempt_states import STATE_OF
from services.ops.attention import attention
from services.ops.decoded_fact import DecodedFact
from services.ops.interventions import OPERATORS, is_intervention
from services.ops.kpis import decile
from services.ops.projection_updates import (
    AttemptUpdate,
    Decision,
    IncidentUpdate,
    Intervention,
    ReportUpdate,
    RetiredPlugin,
    TaskOutcomes,
    Update,
)

# Stands for the plugin's label in a stored line: labels may become known after the fact.
LABEL: Final = "{plugin}"
LONGEST: Final = 500


def project(fact: DecodedFact) -> Iterator[Update]:
    """Everything one fact adds."""
    if fact.incident:
        yield _incident(fact)
    if fact.name in STATE_OF and fact.attempt:
        yield _attempt(fact)
    if fact.name == "decision_made" and fact.text("decision", ""):
        yield _decision(fact)
    yield from attention(replace(fact, label=LABEL) if fact.plugin else fact)
    if fact.name == "plugin_retired":
        yield RetiredPlugin(fact.plugin, fact.merchant, fact.time)
    if is_intervention(fact):
        yield Intervention(fact.id, fact.time, fact.name, fact.actor, fact.merchant, fact.incident)
    if fact.name in REPORT_FIELDS and fact.text("report", ""):
        yield ReportUpdate(fact.text("report"), fact.merchant, **REPORT_FIELDS[fact.name](fact))
    if fact.name in {"tasks_finished", "tasks_recovered"}:
        yield _task_outcomes(fact)


Fields = Callable[[DecodedFact], dict[str, Any]]


def _incident(fact: DecodedFact) -> IncidentUpdate:
    fields = INCIDENT_FIELDS.get(fact.name)
    return IncidentUpdate(
        fact.incident,
        fact.plugin,
        fact.merchant,
        fact.time,
        manual=is_intervention(fact),
        rounds=int(fact.number("round")),
        **(fields(fact) if fields else {}),
    )


def _opened(fact: DecodedFact) -> dict[str, Any]:
    return {
        **_anomaly(fact),
        "open_time": fact.time,
        "first_bad_beat_time": fact.fields.get("first_bad_beat_time"),
        "package": fact.text("package", ""),
        "release": fact.text("release", ""),
        "evidence": str(fact.message("evidence").get("summary") or fact.reason)[:LONGEST],
    }


def _reopened(fact: DecodedFact) -> dict[str, Any]:
    return {
        **_anomaly(fact),
        "reopen_time": fact.time,
        "reopened": int(fact.number("reopened")),
        "flapping": bool(fact.fields.get("flapping")),
        # An operator was asked before; when, another fact says.
        "escalate_time": fact.time if fact.fields.get("escalated") else None,
    }


def _anomaly(fact: DecodedFact) -> dict[str, Any]:
    return {"type": fact.text("type", ""), "severity": severity.number(fact.text("severity", ""))}


INCIDENT_FIELDS: Final[Mapping[str, Fields]] = {
    "incident_opened": _opened,
    "incident_round_started": _anomaly,
    "incident_escalated": lambda fact: {**_anomaly(fact), "escalate_time": fact.time},
    "incident_reopened": _reopened,
    "incident_mitigated": lambda fact: {"mitigate_time": fact.time, "healed_by": fact.text("attempt", "")},
    "incident_closed": lambda fact: {
        "close_time": fact.time,
        "resolution": fact.text("resolution", fact.reason)[:LONGEST],
    },
    "decision_made": lambda fact: {"decide_time": fact.time},
    "attempt_applied": lambda fact: {"apply_time": fact.time},
}


def _attempt(fact: DecodedFact) -> AttemptUpdate:
    state, rank = STATE_OF[fact.name]
    created = fact.name == "attempt_created"
    plan = {name: fact.text(name, "") for name in ("decision", "action", "from_release", "to_release")}
    return AttemptUpdate(
        attempt=fact.attempt,
        incident=fact.incident,
        plugin=fact.plugin,
        merchant=fact.merchant,
        state=state,
        state_time=fact.time,
        state_rank=rank,
        by_operator=created and fact.actor.startswith(OPERATORS),
        create_time=fact.time if created else None,
        apply_time=fact.time if fact.name == "attempt_applied" else None,
        held_by=fact.text("gate", "") if fact.name in {"attempt_held", "apply_denied"} else "",
        reason=fact.reason[:LONGEST],
        **({} if fact.name.startswith("approval_") else plan),
    )


def _decision(fact: DecodedFact) -> Decision:
    confidence = min(1.0, max(0.0, fact.number("confidence")))
    return Decision(
        fact.text("decision"),
        fact.incident,
        fact.merchant,
        fact.time,
        fact.text("action", ""),
        fact.text("origin", ""),
        confidence,
        decile(confidence),
    )


def _task_outcomes(fact: DecodedFact) -> TaskOutcomes:
    states = [str(end.get("state") or "") for end in fact.fields.get("outcomes") or ()]
    retrying = states.count("retrying") + states.count("pending")
    return TaskOutcomes(fact.id, fact.time, states.count("completed"), retrying, states.count("failed"))


def _resolved(fact: DecodedFact) -> dict[str, Any]:
    # The open duration before the resolution is when it was reported, so that this fact alone is enough.
    seconds = fact.number("open_duration")
    reported = fact.time - timedelta(seconds=seconds) if seconds else None
    return {"report_time": reported, "resolve_time": fact.time, "open_seconds": seconds or None}


REPORT_FIELDS: Final[Mapping[str, Fields]] = {
    "error_reported": lambda fact: {"report_time": fact.time},
    "report_resolved": _resolved,
    "report_escalated": lambda fact: {"escalate_time": fact.time},
    "report_closed": lambda fact: {"close_time": fact.time},
}
