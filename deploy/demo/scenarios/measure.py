"""Turns what was told about one incident into the figures of a scenario.

Rule: times are the facts' own. Detection counts from the first bad beat (for a silent plugin: from the fault), the
other steps from the fact that caused them; of several rounds the last one counts, and the total holds them all.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios.scene import ENDS, Report, Scenario, Scene, moment, outcome, seconds
from libs.common.errors import Problem
from prunella.v1 import events_pb2, ingest_pb2, ops_pb2
from prunella.v1.events_pb2 import Event

TRACE_SECONDS = 15.0
LOOK_SECONDS = 0.5
TRIGGERS = ("incident_opened", "incident_round_started")
TRIALS = ("attempt_succeeded", "attempt_rolled_back")


async def document(scene: Scene, scenario: Scenario, report: Report, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    story = scene.chronicle.told(incident=report.incident) if report.incident else []
    trace_id, complete = await trace(scene, report)
    ending = problem or outcome(story)
    if problem:
        report.notes.append(f"so far: {outcome(story) or 'nothing'}")
    decided = newest(story, "decision_made")
    decision = decided.decision_made if decided else None
    return {
        "name": scenario.name,
        "plugin": scenario.label,
        "incident": report.incident,
        "decision": {
            "action": events_pb2.Action.Name(decision.action).removeprefix("ACTION_").lower(),
            "release": decision.release,
            "confidence": round(decision.confidence, 3),
        }
        if decision
        else None,
        "attempt": attempt(story),
        "outcome": ending,
        "expected": scenario.expected,
        "ok": ending == scenario.expected and (complete or not report.traced),
        **await figures(scene, report, story),
        "trace_id": trace_id,
        "trace_complete": complete,
        "notes": report.notes,
    }


async def figures(scene: Scene, report: Report, story: list[Event]) -> dict[str, float | None]:
    """How long each step took, in seconds; None for a step that was not taken."""
    began = await first_bad_beat(scene, report) if report.traced or report.modelled else report.fault
    found = newest(story, "incident_opened")
    decided, applied = newest(story, "decision_made"), newest(story, "attempt_applied")
    return {
        "detect_s": seconds(began, moment(found)),
        "decide_s": seconds(moment(newest(story, *TRIGGERS)), moment(decided)),
        "act_s": seconds(moment(decided), moment(applied)) if applied else None,
        "verify_s": seconds(moment(applied), moment(newest(story, *TRIALS))) if applied else None,
        "total_s": seconds(began, moment(newest(story, *ENDS))),
    }


def newest(story: list[Event], *facts: str) -> Event | None:
    """The last of these facts."""
    found = [event for event in story if event.WhichOneof("fact") in facts]
    return max(found, key=lambda event: event.time.ToNanoseconds()) if found else None


def attempt(story: list[Event]) -> str:
    """The last attempt that was begun."""
    created = newest(story, "attempt_created")
    return created.attempt_created.attempt if created else ""


async def first_bad_beat(scene: Scene, report: Report) -> datetime | None:
    """When the first beat with the anomaly was heard."""
    if not report.incident:
        return None
    request = ingest_pb2.GetIncidentRequest(name=f"incidents/{report.incident}")
    answer = await scene.reach.ingest.GetIncident(request, timeout=CALL_SECONDS)
    return answer.incident.first_bad_beat_time.ToDatetime(UTC)


async def trace(scene: Scene, report: Report) -> tuple[str, bool]:
    """The healing's trace id and whether every step of it is stored; spans may come a little later than facts."""
    if not report.incident:
        return "", False
    request = ops_pb2.GetTraceRequest(name=f"incidents/{report.incident}")
    deadline = asyncio.get_running_loop().time() + TRACE_SECONDS
    answer = ops_pb2.GetTraceResponse()
    while not answer.complete and asyncio.get_running_loop().time() < deadline:
        try:
            answer = await scene.reach.ops.GetTrace(request, timeout=CALL_SECONDS)
        except Problem as problem:
            answer.missing[:] = [problem.message]
        if not report.traced:
            break
        await asyncio.sleep(LOOK_SECONDS)
    if report.traced:
        report.notes.extend(answer.missing)
    return answer.trace_id, answer.complete
