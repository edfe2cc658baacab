"""Turns the facts of one error report into the figures of a scenario.

Rule: the same fields as for an incident. Detection counts from the first time the error occurred to when the
queue had it, deciding ends with the triage, acting with the last end of a try, verifying with the word that it did not
come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios.incident_results import LOOK_SECONDS, TRACE_SECONDS, newest
from deploy.demo.scenarios.scenario import Context, Result, Scenario, decision, entry, fact_time, seconds
from libs.common.errors import Problem
from prunella.v1 import ops_pb2, queue_pb2
from prunella.v1.events_pb2 import Event

OUTCOMES = {"report_resolved": "resolved", "report_escalated": "escalated", "report_closed": "closed"}
REQUIRED_SERVICES = frozenset({"queue", "worker"})


def outcome(facts: list[Event]) -> str:
    """How the report ended, in a word; empty while it is open."""
    end = newest(facts, *OUTCOMES)
    return OUTCOMES[str(end.WhichOneof("fact"))] if end else ""


async def document(ctx: Context, scenario: Scenario, result: Result, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    facts = ctx.timeline.about_report(result.error)
    triaged = newest(facts, "report_triaged")
    made = triaged.report_triaged if triaged else None
    ended, reported = newest(facts, *OUTCOMES), newest(facts, "error_reported")
    worked = newest(facts, "tasks_finished")
    began = await first_seen(ctx, result)
    trace_id, complete = await trace(ctx, result)
    return entry(
        scenario,
        result,
        problem or outcome(facts),
        error=result.error,
        decision=decision(made.strategy.rpartition("/")[2], "", made.confidence) if made else None,
        detect_s=seconds(began, fact_time(reported)),
        decide_s=seconds(fact_time(reported), fact_time(triaged)),
        act_s=seconds(fact_time(triaged), fact_time(worked)),
        verify_s=seconds(fact_time(worked), fact_time(newest(facts, "report_resolved"))),
        total_s=seconds(began, fact_time(ended)),
        trace_id=trace_id,
        trace_complete=complete,
    )


async def first_seen(ctx: Context, result: Result) -> datetime | None:
    """When the plugin met the error first; None when the queue never heard of it."""
    if not result.error:
        return None
    request = queue_pb2.GetErrorReportRequest(name=f"errorReports/{result.error}")
    answer = await ctx.client.queue.GetErrorReport(request, timeout=CALL_SECONDS)
    return answer.report.first_seen_time.ToDatetime(UTC)


async def trace(ctx: Context, result: Result) -> tuple[str, bool]:
    """The trace of the report, and whether all who took part are in it, each step under one that is there too.

    A worker that was killed took its own steps with it: such a trace is not looked at.
    """
    found = ""
    request = ops_pb2.ListTimelineRequest(page_size=200, plugin=result.plugin, facts=["error_reported"])
    for listed in (await ctx.client.ops.ListTimeline(request, timeout=CALL_SECONDS)).entries:
        if listed.event.error_reported.report.rpartition("/")[2] == result.error:
            found = listed.trace_id
    deadline = asyncio.get_running_loop().time() + TRACE_SECONDS
    missing = ["no trace was begun"]
    while result.traced and found and missing and asyncio.get_running_loop().time() < deadline:
        try:
            answer = await ctx.client.ops.GetTrace(ops_pb2.GetTraceRequest(name=found), timeout=CALL_SECONDS)
            missing = gaps(answer.spans)
        except Problem as problem:
            missing = [problem.message]
        await asyncio.sleep(LOOK_SECONDS)
    if result.traced:
        result.notes += missing
    return found, not missing


def gaps(spans: Iterable[ops_pb2.Span]) -> list[str]:
    """What is missing in a trace, in words: whoever took no part, and steps whose cause is not there."""
    listed = list(spans)
    here, services = {span.span_id for span in listed}, {span.service for span in listed}
    orphans = [span for span in listed if span.parent_span_id and span.parent_span_id not in here]
    return [f"{service} took no part" for service in sorted(REQUIRED_SERVICES - services)] + [
        f"the parent of {span.service} “{span.name}” is not here" for span in orphans
    ]
