"""Turns the facts of a rollout or a storm into the figures of a scenario.

Rule: the same fields as for an incident, with the rollout or the storm named beside. Neither heals a single plugin, so
only the total has a time: from the wish, or the first refused webhook, to the end.
"""

from __future__ import annotations

from typing import Any

from deploy.demo.scenarios import rollouts
from deploy.demo.scenarios.incident_results import newest
from deploy.demo.scenarios.scenario import Context, Result, Scenario, entry, fact_time, seconds
from prunella.v1.events_pb2 import Event


def facts_of(ctx: Context, result: Result) -> list[Event]:
    """The facts of the scenario's rollout or storm."""
    if result.rollout:
        return ctx.timeline.facts(where=lambda event: rollouts.about(event, result.rollout))
    return ctx.timeline.facts("storm_started", "storm_ended", where=lambda event: storm_of(event) == result.storm)


def storm_of(event: Event) -> str:
    """The id of the storm that a fact tells of."""
    fields = event.storm_started if event.WhichOneof("fact") == "storm_started" else event.storm_ended
    return fields.storm.rpartition("/")[2]


def outcome(result: Result, events: list[Event]) -> str:
    """How it ended, in a few words. What the scenario found wrong was raised before."""
    if result.rollout:
        return rollouts.outcome(events)
    return "one storm, nothing patched, over" if newest(events, "storm_ended") else ""


async def document(ctx: Context, scenario: Scenario, result: Result, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    events = facts_of(ctx, result) if result.rollout or result.storm else []
    last = max(events, key=lambda event: event.time.ToNanoseconds(), default=None)
    total = seconds(result.fault, fact_time(last))
    ended = problem or outcome(result, events)
    return entry(scenario, result, ended, rollout=result.rollout, storm=result.storm, total_s=total)
