"""Turns what was told about one error report into the figures of a scenario.

Rule: the same fields as for an incident. Detection counts from the first time the error occurred to the moment the
queue had it, deciding ends with the triage, acting with the last end of a try, verifying with the word that it did not
come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios.measure import LOOK_SECONDS, TRACE_SECONDS, newest
from deploy.demo.scenarios.scene import Report, Scenario, Scene, moment, seconds
from libs.common.errors import Problem
from prunella.v1 import ops_pb2, queue_pb2
from prunella.v1.events_pb2 import Event

WORDS = {"report_resolved": "resolved", "report_escalated": "escalated", "report_closed": "closed"}
INVOLVED = frozenset({"queue", "worker"})


def outcome(story: list[Event]) -> str:
    """How the story ended, in a word; empty while it goes on."""
    end = newest(story, *WORDS)
    return WORDS[str(end.WhichOneof("fact"))] if end else ""


async def document(scene: Scene, scenario: Scenario, report: Report, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    story = scene.chronicle.about(report.error)
    triaged = newest(story, "report_triaged")
    decision = triaged.report_triaged if triaged else None
    ended, told = newest(story, *WORDS), newest(story, "error_reported")
    worked = newest(story, "tasks_finished")
    ending = problem or outcome(story)
    began = await first_seen(scene, report)
    trace_id, complete = await trace(scene, report)
    return {
        "name": scenario.name,
        "plugin": scenario.label,
        "incident": "",
        "error": report.error,
        "decision": {
            "action": decision.strategy.rpartition("/")[2],
            "release": "",
            "confidence": round(decision.confidence, 3),
        }
        if decision
        else None,
        "attempt": "",
        "outcome": ending,
        "expected": scenario.expected,
        "ok": ending == scenario.expected and (complete or not report.traced),
        "detect_s": seconds(began, moment(told)),
        "decide_s": seconds(moment(told), moment(triaged)),
        "act_s": seconds(moment(triaged), moment(worked)),
        "verify_s": seconds(moment(worked), moment(newest(story, "report_resolved"))),
        "total_s": seconds(began, moment(ended)),
        "trace_id": trace_id,
        "trace_complete": complete,
        "notes": report.notes,
    }


async def first_seen(scene: Scene, report: Report) -> datetime | None:
    """When the plugin met the error first; None when the queue never heard of it."""
    if not report.error:
        return None
    request = queue_pb2.GetErrorReportRequest(name=f"errorReports/{report.error}")
    answer = await scene.reach.queue.GetErrorReport(request, timeout=CALL_SECONDS)
    return answer.report.first_seen_time.ToDatetime(UTC)


async def trace(scene: Scene, report: Report) -> tuple[str, bool]:
    """The trace of the report, and whether all who took part are in it, each step under one that is there too.

    A worker that was killed took its own steps with it: such a trace is not looked at.
    """
    found = ""
    request = ops_pb2.ListTimelineRequest(page_size=200, plugin=report.plugin, facts=["error_reported"])
    for entry in (await scene.reach.ops.ListTimeline(request, timeout=CALL_SECONDS)).entries:
        if entry.event.error_reported.report.rpartition("/")[2] == report.error:
            found = entry.trace_id
    deadline = asyncio.get_running_loop().time() + TRACE_SECONDS
    missing = ["no trace was begun"]
    while report.traced and found and missing and asyncio.get_running_loop().time() < deadline:
        try:
            answer = await scene.reach.ops.GetTrace(ops_pb2.GetTraceRequest(name=found), timeout=CALL_SECONDS)
            missing = holes(answer.spans)
        except Problem as problem:
            missing = [problem.message]
        await asyncio.sleep(LOOK_SECONDS)
    if report.traced:
        report.notes += missing
    return found, not missing


def holes(spans: Iterable[ops_pb2.Span]) -> list[str]:
    """What is missing in a trace, in words: whoever took no part, and steps whose cause is not there."""
    told = list(spans)
    here, services = {span.span_id for span in told}, {span.service for span in told}
    orphans = [span for span in told if span.parent_span_id and span.parent_span_id not in here]
    return [f"{service} took no part" for service in sorted(INVOLVED - services)] + [
        f"the parent of {span.service} “{span.name}” is not here" for span in orphans
    ]
