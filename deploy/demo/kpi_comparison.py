"""Whether the figures and stories of ops fit what was played and what was recorded.

Rule: three witnesses are compared: the facts in the database, the entries of the scenarios, and what ops shows people.
Each difference is a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from libs.common.errors import Problem
from prunella.v1 import kpis_pb2, stories_pb2

# A story and a scenario may take the same moment from different facts of one transaction.
CLOSE = 0.05


async def compare(
    client: OperatorClient, fact_counts: Mapping[str, int], scenarios: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The figures as ops shows them, and where they differ from the facts and the scenarios."""
    kpis = await client.ops.GetKpis(kpis_pb2.GetKpisRequest(), timeout=CALL_SECONDS)
    lines = differences(kpis, fact_counts)
    for scenario in scenarios:
        # One that ended otherwise than it must says so itself.
        if not scenario.get("incident") or not scenario["ok"]:
            continue
        request = stories_pb2.GetStoryRequest(name=f"incidents/{scenario['incident']}")
        try:
            story = (await client.ops.GetStory(request, timeout=CALL_SECONDS)).story
        except Problem as problem:
            lines.append(f"{scenario['name']}: {problem.message}")
            continue
        lines += story_differences(story, scenario)
    return MessageToDict(kpis, preserving_proto_field_name=True), lines


def differences(kpis: kpis_pb2.GetKpisResponse, fact_counts: Mapping[str, int]) -> list[str]:
    """Where figures differ from the number of facts. An incident that came back has ended more often than it counts."""
    again = fact_counts.get("incident_reopened", 0)
    figures = {
        "incident_opened": (sum(kpis.incidents_by_severity.values()), 0),
        "incident_reopened": (kpis.reopenings, 0),
        "incident_mitigated": (kpis.incidents_ended.get("mitigated", 0), again),
        "incident_closed": (kpis.incidents_ended.get("closed", 0), again),
    }
    return [
        f"{fact} was recorded {fact_counts.get(fact, 0)} times, the figures say {number}"
        for fact, (number, fewer) in figures.items()
        if not fact_counts.get(fact, 0) - fewer <= number <= fact_counts.get(fact, 0)
    ]


def story_differences(story: stories_pb2.Story, scenario: Mapping[str, Any]) -> list[str]:
    """Where the story of an incident differs from the scenario that caused it."""
    wrong = []
    healed = str(scenario["outcome"]).endswith("mitigated")
    if healed != (story.state == "mitigated"):
        wrong.append(f"the story is {story.state}, the scenario ended with {scenario['outcome']}")
    tries = {one.attempt: one for one in story.attempts}
    last = tries.get(str(scenario.get("attempt") or ""))
    if healed and (last is None or last.state != "success"):
        wrong.append(f"the story does not know that {scenario.get('attempt')} healed it")
    decision = scenario.get("decision")
    if last and decision and round(last.confidence, 3) != decision["confidence"]:
        wrong.append(f"the story says confidence {last.confidence:.3f}, the scenario {decision['confidence']:.3f}")
    if healed and scenario.get("total_s") is not None:
        took = (story.end_time.ToNanoseconds() - story.first_bad_beat_time.ToNanoseconds()) / 1e9
        if abs(took - scenario["total_s"]) > CLOSE:
            wrong.append(f"the story took {took:.2f} s, the scenario {scenario['total_s']:.2f} s")
    return [f"{scenario['name']}: {line}" for line in wrong]
