"""After a healing, figures, story and overview say what happened, as the facts and the incident itself say it."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from deploy.local.testing import Plane, until
from prunella.v1 import ingest_pb2, ingest_pb2_grpc, kpis_pb2, overview_pb2, stories_pb2
from prunella.v1.ops_pb2_grpc import OpsServiceStub


async def test_after_a_healing_figures_story_and_overview_agree_with_it(relay_plane: Plane) -> None:
    ops: Any = OpsServiceStub(relay_plane.channel("ops"))
    agent = await relay_plane.agent("shop-7")
    agent.beat()
    await agent.acknowledged()
    agent.beat(webhooks=25, failed=15)
    opened = await relay_plane.wait_for_fact("incident_opened")
    mitigated = await relay_plane.wait_for_fact("incident_mitigated", 90.0)
    decided = (await relay_plane.wait_for_fact("decision_made")).decision_made
    attempt = mitigated.incident_mitigated.attempt
    name = f"incidents/{opened.incident}"

    async def told() -> stories_pb2.Story | None:
        story: stories_pb2.Story = (await ops.GetStory(stories_pb2.GetStoryRequest(name=name), timeout=10)).story
        return story if story.state == "mitigated" else None

    story = await until(told, 20, what="the story has its end")
    ingest: Any = ingest_pb2_grpc.IngestServiceStub(relay_plane.channel("ingest"))
    incident = (await ingest.GetIncident(ingest_pb2.GetIncidentRequest(name=name), timeout=10)).incident
    assert story.first_bad_beat_time == incident.first_bad_beat_time
    assert (story.open_time, story.type, story.evidence) == (opened.time, incident.type, incident.evidence.summary)
    (one,) = [found for found in story.attempts if found.attempt == attempt]
    assert (one.state, one.from_release, one.to_release, one.confidence) == (
        "success", "1.2.0", "1.2.3", decided.confidence,
    )  # fmt: skip
    assert "tests passed" in one.staging
    assert one.verdict.startswith("pass")
    assert story.rollback_command == f'prunella rollback {attempt} --reason "…"'

    seconds = (mitigated.time.ToDatetime(UTC) - opened.time.ToDatetime(UTC)).total_seconds()
    found: kpis_pb2.GetKpisResponse = await ops.GetKpis(kpis_pb2.GetKpisRequest(), timeout=10)
    success = found.success
    assert (success.numerator, success.denominator, success.value, success.met) == (1, 1, 1.0, True)
    assert (found.rollback.value, found.rollback.met) == (0.0, True)
    assert abs(found.time_to_repair.mean_seconds - seconds) < 0.001
    detected = opened.time.ToDatetime(UTC) - incident.first_bad_beat_time.ToDatetime(UTC)
    assert abs(found.time_to_detect.mean_seconds - max(timedelta(), detected).total_seconds()) < 0.001
    assert (found.automatic_resolution.value, found.manual_interventions) == (1.0, 0)
    assert (found.fleet.plugins, found.fleet.connected) == (1, 1)

    seen: overview_pb2.GetOverviewResponse = await ops.GetOverview(overview_pb2.GetOverviewRequest(), timeout=10)
    assert not seen.active_incidents
    assert not seen.attention
    assert (seen.recent.opened, seen.recent.healed) == (1, 1)
    assert {one.service for one in seen.services} == {"ingest", "decider", "patcher", "queue", "ops"}
