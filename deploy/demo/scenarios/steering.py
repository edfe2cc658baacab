"""Turns what was told about a rollout or a storm into the figures of a scenario.

Rule: the same fields as for an incident, with the rollout or the storm named beside. Neither heals a single plugin, so
only the total has a time: from the wish, or the first refused webhook, to the end.
"""

from __future__ import annotations

from typing import Any

from deploy.demo.scenarios import rollouts
from deploy.demo.scenarios.measure import newest
from deploy.demo.scenarios.scene import Report, Scenario, Scene, moment, seconds
from prunella.v1.events_pb2 import Event


def story(scene: Scene, report: Report) -> list[Event]:
    """What was told about the scenario's rollout or storm."""
    if report.rollout:
        return scene.chronicle.told(where=lambda event: rollouts.about(event, report.rollout))
    return scene.chronicle.told("storm_started", "storm_ended", where=lambda event: raged(event) == report.storm)


def raged(event: Event) -> str:
    """The id of the storm that a fact tells of."""
    told = event.storm_started if event.WhichOneof("fact") == "storm_started" else event.storm_ended
    return told.storm.rpartition("/")[2]


def outcome(report: Report, events: list[Event]) -> str:
    """How it ended, in a few words. What the scenario found wrong was raised before."""
    if report.rollout:
        return rollouts.outcome(events)
    return "one storm, nothing patched, over" if newest(events, "storm_ended") else ""


async def document(scene: Scene, scenario: Scenario, report: Report, problem: str) -> dict[str, Any]:
    """The scenario's entry in the JSON document. `problem` is why it cannot be ok, empty when it can."""
    events = story(scene, report) if report.rollout or report.storm else []
    last = max(events, key=lambda event: event.time.ToNanoseconds(), default=None)
    ending = problem or outcome(report, events)
    return {
        "name": scenario.name,
        "plugin": scenario.label,
        "incident": "",
        "rollout": report.rollout,
        "storm": report.storm,
        "decision": None,
        "attempt": "",
        "outcome": ending,
        "expected": scenario.expected,
        "ok": ending == scenario.expected,
        **dict.fromkeys(("detect_s", "decide_s", "act_s", "verify_s")),
        "total_s": seconds(report.fault, moment(last)),
        "trace_id": "",
        "trace_complete": False,
        "notes": report.notes,
    }
