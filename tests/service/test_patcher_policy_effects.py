"""Every field of the policy has effect: each is changed in a living patcher, and an attempt fares differently."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import BackingServices, until
from libs.common.errors import Invalid
from prunella.v1 import events_pb2, patcher_pb2
from services.patcher.attempt import Bounds
from services.patcher.policy import EDITABLE, Isolation, Policy
from tests.service.governance import of, set_policy, whole
from tests.service.patcher_alone import SMOKE, PatcherAlone, archive, plugin_of
from tests.service.staging_runner import StagingRunner

HIGH = events_pb2.SEVERITY_HIGH
ALWAYS = patcher_pb2.FreezeWindow(cron="* * * * *", time_zone="UTC", duration=Duration(seconds=3600), reason="a feast")
CALM: dict[str, Any] = {
    "require_staging": False,
    "autopatch_enabled": True,
    "autopatch_merchants": [],
    "autopatch_max_severity": HIGH,
    "min_confidence": 0.75,
    "canary_percentage": 0,
    "canary_merchants": [],
    "freeze_windows": [],
    "require_multisig_for_major": True,
    "require_multisig_for_high_impact": True,
    "high_impact_plugins": 50,
    "max_in_flight": 100,
    "max_in_flight_percentage": 100.0,
}


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        await patcher.publish(archive(tmp_path / "major", main="print('two')"), version="2.0.0")
        await set_policy(patcher, **CALM)
        yield patcher
    finally:
        await patcher.stop()


async def test_a_sandbox_that_gives_less_than_min_isolation_runs_nothing(alone: PatcherAlone) -> None:
    runner = alone.ctx.runner = StagingRunner(gives=Isolation.USER)
    await set_policy(alone, **CALM | {"require_staging": True, "min_isolation": patcher_pb2.ISOLATION_NAMESPACES})
    await alone.decide(plugin="i1")
    refused = await of(alone, "i1", "refused")
    assert "isolation user" in refused.reason and "min_isolation" in refused.reason
    assert runner.runs == 0
    await set_policy(alone, min_isolation=patcher_pb2.ISOLATION_USER)
    await alone.decide(plugin="i2")
    await of(alone, "i2", "applying")
    assert runner.runs == 1


async def test_each_field_that_refuses_refuses_at_its_gate(alone: PatcherAlone) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"autopatch_enabled": False}, "AUTOPATCH_DISABLED"),
        ({"autopatch_merchants": ["m2"]}, "ALLOW_LIST"),
        ({"autopatch_max_severity": events_pb2.SEVERITY_LOW}, "SEVERITY"),
        ({"min_confidence": 0.9}, "CONFIDENCE"),
    ]
    for number, (change, gate) in enumerate(cases):
        await set_policy(alone, **CALM | change)
        await alone.decide(plugin=f"r{number}")
        await of(alone, f"r{number}", "refused")
        told = await alone.plane.wait_for_fact("attempt_refused", times=number + 1)
        assert told.attempt_refused.gate == gate
    await set_policy(alone, **CALM)
    await alone.decide(plugin="free")
    await of(alone, "free", "applying")


async def test_each_field_that_holds_holds_at_its_gate_and_lets_go_when_it_is_changed_back(alone: PatcherAlone) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"canary_percentage": 1}, "CANARY"),
        ({"canary_merchants": ["m2"]}, "CANARY"),
        ({"freeze_windows": [ALWAYS]}, "FREEZE"),
    ]
    for number, (change, gate) in enumerate(cases):
        await set_policy(alone, **CALM | change)
        # Names chosen so that the draw of one percent does not fall on them.
        await alone.decide(plugin=f"h{number}")
        await of(alone, f"h{number}", "pending", held_by=gate)
        await set_policy(alone, **CALM)
        await of(alone, f"h{number}", "applying")
    await set_policy(alone, **CALM | {"canary_merchants": ["m1"]})
    await alone.decide(plugin="canary")
    await of(alone, "canary", "applying")


async def test_the_budget_in_flight_is_the_smaller_of_number_and_share(alone: PatcherAlone) -> None:
    await set_policy(alone, max_in_flight=1)
    await alone.decide(plugin="b1")
    await of(alone, "b1", "applying")
    await alone.decide(plugin="b2")
    held = await of(alone, "b2", "pending", held_by="BUDGET")
    assert held.reason == "1 attempts are in flight, 1 may be"
    # A thousand plugins, a fifth of a percent of them: two.
    await set_policy(alone, max_in_flight=100, max_in_flight_percentage=0.2)
    await of(alone, "b2", "applying")
    await alone.decide(plugin="b3")
    await of(alone, "b3", "pending", held_by="BUDGET")
    slots = await alone.plane.sql("SELECT holder FROM patcher.slots")
    assert len(slots) == 2
    first = await of(alone, "b1", "applying")
    request = patcher_pb2.CancelAttemptRequest(name=first.name, reason="a test", request_id="c")
    await alone.stub.CancelAttempt(request, timeout=5)
    await of(alone, "b3", "applying")


async def test_each_field_about_people_asks_them(alone: PatcherAlone) -> None:
    await alone.decide(plugin="a1", release="2.0.0")
    asked = await of(alone, "a1", "awaiting_approval")
    assert (asked.approval.quorum, list(asked.approval.roles), asked.approval.status) == (2, ["approver"], "open")
    assert "1.2.0 → 2.0.0 is a major change" in asked.reason
    await alone.decide(plugin="a2", severity=HIGH)
    await of(alone, "a2", "awaiting_approval")
    await set_policy(
        alone,
        multisig_quorum=1,
        multisig_roles=["admin"],
        multisig_approvers=["bea", "cem"],
        approval_timeout=Duration(seconds=120),
    )
    await alone.decide(plugin="a3", release="2.0.0")
    asked = await of(alone, "a3", "awaiting_approval")
    assert (asked.approval.quorum, list(asked.approval.roles)) == (1, ["admin"])
    assert 0 < asked.approval.expire_time.seconds - asked.update_time.seconds <= 121
    await set_policy(alone, require_multisig_for_major=False, require_multisig_for_high_impact=False)
    await alone.decide(plugin="a4", release="2.0.0", severity=HIGH)
    await of(alone, "a4", "applying")


async def test_a_change_that_many_plugins_are_about_to_get_is_of_high_impact(alone: PatcherAlone) -> None:
    await set_policy(alone, high_impact_plugins=1)
    await alone.decide(plugin="i1")
    await of(alone, "i1", "applying")
    await alone.decide(plugin="i2")
    asked = await of(alone, "i2", "awaiting_approval")
    assert "touches 2 plugins" in asked.reason


async def test_a_plugin_is_touched_so_often_within_a_window_and_no_more(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report()
    await set_policy(alone, max_attempts=1, attempts_window=Duration(seconds=60))
    await alone.decide()
    await of(alone, "p1", "success")
    alone.ingest.plugins["p1"].CopyFrom(plugin_of("p1"))
    await alone.decide()
    refused = await of(alone, "p1", "refused")
    assert "1 attempts on this plugin within" in refused.reason
    earlier = "UPDATE patcher.attempts SET permit_time = permit_time - interval '61 seconds'"
    await alone.ctx.database.transaction(lambda tx: tx.run(earlier))
    await alone.decide()
    await of(alone, "p1", "success")


async def test_staging_is_required_or_not_and_has_so_much_time(alone: PatcherAlone, tmp_path: Path) -> None:
    slow = archive(tmp_path / "slow", smoke="import time\ntime.sleep(8)\n" + SMOKE)
    await alone.publish(slow, version="1.2.9")
    await set_policy(alone, require_staging=True, staging_timeout=Duration(seconds=1))
    await alone.decide(plugin="s1", release="1.2.9")
    failed = await of(alone, "s1", "failed", timeout=30)
    assert "staging" in "".join(step.observation for step in failed.history)
    await set_policy(alone, require_staging=False)
    await alone.decide(plugin="s2", release="1.2.9")
    applying = await of(alone, "s2", "applying")
    assert not applying.HasField("staging")


async def test_failures_above_the_threshold_are_taken_back_and_below_it_kept(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report(attempts=100, failures=20, errors=20)
    await set_policy(alone, rollback_error_rate_threshold=30.0)
    await alone.decide(plugin="e1")
    await of(alone, "e1", "success")
    await set_policy(alone, rollback_error_rate_threshold=5.0)
    await alone.decide(plugin="e2")
    taken_back = await of(alone, "e2", "rolled_back")
    assert "20% of 100 webhooks fail" in taken_back.verdict.explanation


async def test_silence_after_the_switch_is_taken_back_in_time(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report(beats=0, attempts=0)
    interval = Duration(nanos=200_000_000)
    await set_policy(alone, rollback_heartbeat_missed=Duration(seconds=5), health_check_interval=interval)
    await alone.decide()
    taken_back = await of(alone, "p1", "rolled_back", timeout=20)
    assert taken_back.verdict.explanation.startswith("silent for")


async def test_how_long_and_how_often_health_is_looked_at(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report(beats=1, attempts=0)
    timeout, interval = Duration(seconds=5), Duration(seconds=4)
    await set_policy(alone, health_check_timeout=timeout, health_check_interval=interval)
    await alone.decide()
    applied = (await alone.plane.wait_for_fact("attempt_applied")).attempt_applied
    found = await of(alone, "p1", "probation", "rolled_back", "rolling_back", "success")
    assert round(applied.probation_until_time.ToSeconds() - found.switch_time.ToSeconds()) == 5
    await until(lambda: alone.ingest.looks == 1, what="it is looked at once")
    # An interval that is changed meanwhile counts from the last look.
    await set_policy(alone, health_check_interval=Duration(nanos=200_000_000))
    await until(lambda: alone.ingest.looks >= 3, 3, what="it is looked at again and again")


async def test_a_verdict_may_not_take_longer_than_an_agent_waits_for_its_commit(alone: PatcherAlone) -> None:
    before = await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)
    with pytest.raises(Invalid) as caught:
        await set_policy(alone, health_check_timeout=Duration(seconds=3000))
    assert (caught.value.reason, caught.value.field) == ("HEALTH_TIMEOUT_TOO_LONG", "policy.health_check_timeout")
    assert await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5) == before
    assert Bounds().probation == Policy().health_check_timeout.total_seconds(), "the defaults have effect"


async def test_whether_outcomes_teach_is_told_to_who_learns(alone: PatcherAlone) -> None:
    await set_policy(alone, learning_enabled=False)
    told = await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)
    assert not told.policy.learning_enabled


def test_no_field_is_left_out() -> None:
    text = Path(__file__).read_text()
    assert not [name for name in EDITABLE if name not in text]


async def test_history_says_who_changed_what_and_why(alone: PatcherAlone) -> None:
    await set_policy(alone, min_confidence=0.8)
    listed = await alone.stub.ListPolicyChanges(patcher_pb2.ListPolicyChangesRequest(page_size=1), timeout=5)
    (newest,) = listed.changes
    assert (newest.version, newest.actor, newest.reason) == (3, "operators/local", "a test")
    assert [(each.field, each.before, each.after) for each in newest.fields] == [("min_confidence", "0.75", "0.8")]
    request = patcher_pb2.ListPolicyChangesRequest(page_size=5, page_token=listed.next_page_token)
    older = await alone.stub.ListPolicyChanges(request, timeout=5)
    assert [change.version for change in older.changes] == [2, 1]


async def test_a_preview_says_what_other_values_would_have_decided_and_changes_nothing(alone: PatcherAlone) -> None:
    await alone.decide(plugin="w1")
    await of(alone, "w1", "applying")
    await alone.decide(plugin="w2", confidence=0.95)
    last = await of(alone, "w2", "applying")
    request = patcher_pb2.PreviewPolicyRequest(policy=patcher_pb2.Policy(min_confidence=0.9))
    request.update_mask.paths.append("min_confidence")
    answer = await alone.stub.PreviewPolicy(request, timeout=5)
    (turn,) = answer.replays
    assert (turn.plugin, turn.current, turn.proposed, turn.proposed_gate, answer.unchanged_count) == (
        "w1",
        "allow",
        "refuse",
        "CONFIDENCE",
        1,
    )
    assert (await whole(alone, last.name)).state == "applying"
    policy = await alone.stub.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=5)
    assert policy.policy.min_confidence == 0.75
