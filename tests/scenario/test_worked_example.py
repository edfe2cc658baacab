"""The worked example of the founding document: webhook_fail_rate 0.6 → medium → patch 1.2.3 at 0.87 → success."""

from __future__ import annotations

from deploy.local.testing import Plane
from prunella.v1.events_pb2 import ACTION_PATCH, SEVERITY_MEDIUM


async def test_a_failure_rate_of_0_6_is_medium_and_patched_to_1_2_3_by_the_default_policy(
    relay_plane: Plane,
) -> None:
    agent = await relay_plane.agent("shop-7")
    agent.beat()
    await agent.acknowledged()
    agent.beat(webhooks=25, failed=15)

    opened = (await relay_plane.wait_for_fact("incident_opened")).incident_opened
    assert (opened.type, opened.severity, opened.round) == ("webhook_fail_rate", SEVERITY_MEDIUM, 1)
    assert "0.60 > 0.30" in opened.evidence.summary

    made = (await relay_plane.wait_for_fact("decision_made")).decision_made
    assert (made.action, made.release, made.origin) == (ACTION_PATCH, "1.2.3", "playbook")
    assert round(made.confidence, 2) == 0.87
    assert 0 < made.propensity <= 1

    staged = (await relay_plane.wait_for_fact("attempt_staged", 60.0)).attempt_staged
    assert staged.passed
    assert staged.tests_run == staged.tests_passed > 0

    succeeded = (await relay_plane.wait_for_fact("attempt_succeeded", 30.0)).attempt_succeeded
    assert (succeeded.from_release, succeeded.to_release) == ("1.2.0", "1.2.3")
    assert succeeded.verdict.result == "pass"
    assert succeeded.verdict.beats >= 5

    mitigated = await relay_plane.wait_for_fact("incident_mitigated")
    assert mitigated.incident_mitigated.attempt == succeeded.attempt
    assert not await relay_plane.facts("incident_escalated", "attempt_rolled_back")
