"""Turns the facts of one incident into the figures of a scenario.

Rule: times are the facts' own. Detection counts from the first bad beat (for a silent plugin: from the fault), the
other steps from the fact that caused them; of several rounds the last one counts, and the total holds them all.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios.scenario import ENDS, Context, Result, Scenario, decision, entry, fact_time, outcome, seconds
from libs.common.errors import Problem
from prunella.v1 import events_pb2, ingest_pb2, ops_pb2
from prunella.v1.events_pb2 import Event

TRACE_SECONDS = 15.0
LOOK_SECONDS = 0.5
TRIGGERS = ("incident_opened", "incident_round_started")
VERDICTS = ("attempt_succeeded", "attempt_rolled_back")


async def document(ctx: Context, scenario: Scenario, result: Result, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    facts = ctx.timeline.facts(incident=result.incident) if result.incident else []
    trace_id, complete = await trace(ctx, result)
    outcome_or_problem = problem or outcome(facts)
    if problem:
        result.notes.append(f"so far: {outcome(facts) or 'nothing'}")
    decided = newest(facts, "decision_made")
    made = decided.decision_made if decided else None
    action = events_pb2.Action.Name(made.action).removeprefix("ACTION_").lower() if made else ""
    return entry(
        scenario,
        result,
        outcome_or_problem,
        decision=decision(action, made.release, made.confidence) if made else None,
        attempt=attempt(facts),
        **await figures(ctx, result, facts),
        trace_id=trace_id,
        trace_complete=complete,
    )


async def figures(ctx: Context, result: Result, facts: list[Event]) -> dict[str, float | None]:
    """How long each step took, in seconds; None for a step that was not taken."""
    began = await first_bad_beat(ctx, result) if result.traced or result.modelled else result.fault
    found = newest(facts, "incident_opened")
    decided, applied = newest(facts, "decision_made"), newest(facts, "attempt_applied")
    return {
        "detect_s": seconds(began, fact_time(found)),
        "decide_s": seconds(fact_time(newest(facts, *TRIGGERS)), fact_time(decided)),
        "act_s": seconds(fact_time(decided), fact_time(applied)) if applied else None,
        "verify_s": seconds(fact_time(applied), fact_time(newest(facts, *VERDICTS))) if applied else None,
        "total_s": seconds(began, fact_time(newest(facts, *ENDS))),
    }


def newest(facts: list[Event], *names: str) -> Event | None:
    """The last of these facts."""
    found = [event for event in facts if event.WhichOneof("fact") in names]
    return max(found, key=lambda event: event.time.ToNanoseconds()) if found else None


def attempt(facts: list[Event]) -> str:
    """The last attempt that was begun."""
    created = newest(facts, "attempt_created")
    return created.attempt_created.attempt if created else ""


async def first_bad_beat(ctx: Context, result: Result) -> datetime | None:
    """When the first beat with the anomaly arrived."""
    if not result.incident:
        return None
    request = ingest_pb2.GetIncidentRequest(name=f"incidents/{result.incident}")
    answer = await ctx.client.ingest.GetIncident(request, timeout=CALL_SECONDS)
    return answer.incident.first_bad_beat_time.ToDatetime(UTC)


async def trace(ctx: Context, result: Result) -> tuple[str, bool]:
    """The healing's trace id and whether every step of it is stored; spans may come a little later than facts."""
    if not result.incident:
        return "", False
    request = ops_pb2.GetTraceRequest(name=f"incidents/{result.incident}")
    deadline = asyncio.get_running_loop().time() + TRACE_SECONDS
    answer = ops_pb2.GetTraceResponse()
    while not answer.complete and asyncio.get_running_loop().time() < deadline:
        try:
            answer = await ctx.client.ops.GetTrace(request, timeout=CALL_SECONDS)
        except Problem as problem:
            answer.missing[:] = [problem.message]
        if not result.traced:
            break
        await asyncio.sleep(LOOK_SECONDS)
    if result.traced:
        result.notes.extend(answer.missing)
    return answer.trace_id, answer.complete
