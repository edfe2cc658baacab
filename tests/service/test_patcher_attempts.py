"""A decision becomes an attempt, and the attempt ends as the agent says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.bus import fact_name
from libs.common.errors import Refused
from libs.common.names import new_id
from prunella.v1 import events_pb2, patcher_pb2
from tests.service.patcher_alone import TRACE, PatcherAlone, archive, plugin_of


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start(agent=True)
        await patcher.publish(archive(tmp_path / "release"))
        patcher.report()
        yield patcher
    finally:
        await patcher.stop()


async def told(alone: PatcherAlone) -> list[str]:
    return [fact_name(event) for event in await alone.plane.facts() if event.source == "patcher"]


async def switch(alone: PatcherAlone, scope: str, engaged: bool, **more: Any) -> Any:
    if engaged:
        request = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason="a test", request_id=new_id(), **more)
        return await alone.stub.EngageKillSwitch(request, timeout=10)
    return await alone.release_switch(scope)


async def test_a_good_patch_is_staged_applied_watched_and_kept(alone: PatcherAlone) -> None:
    _, event = await alone.decide()
    attempt = await alone.attempt("success")
    states = [step.to_state for step in attempt.history if step.from_state != step.to_state]
    assert states == ["staging", "staged", "applying", "probation", "committing", "success"]
    assert (attempt.staging.tests_run, attempt.staging.passed) == (2, True)
    assert attempt.verdict.result == "pass"
    assert await told(alone) == [
        "release_published", "attempt_created", "attempt_staged", "apply_authorized", "attempt_applied",
        "attempt_committing", "attempt_succeeded",
    ]  # fmt: skip
    created = (await alone.plane.facts("attempt_created"))[0]
    assert (created.cause_id, created.incident) == (event.id, event.incident)
    assert attempt.trace_id == TRACE.split("-")[1]
    rows = await alone.plane.sql(
        "SELECT DISTINCT split_part(traceparent, '-', 2) AS trace FROM bus.facts WHERE incident <> ''"
    )
    assert [row.trace for row in rows] == [attempt.trace_id], "one healing, one trace"


async def test_a_bad_patch_is_taken_back(alone: PatcherAlone) -> None:
    alone.report(attempts=30, failures=18)
    await alone.decide()
    attempt = await alone.attempt("rolled_back")
    assert attempt.verdict.result == "fail"
    back = (await alone.plane.facts("attempt_rolled_back"))[0].attempt_rolled_back
    assert (back.to_release, back.round, back.dead_man) == ("1.2.3", 1, False)


async def test_a_decision_told_twice_and_again_by_another_event_is_one_attempt(alone: PatcherAlone) -> None:
    incident, event = await alone.decide()
    again = events_pb2.DecisionMade()
    again.CopyFrom(event.decision_made)
    other = await alone.tell(again, source="decider", incident=incident)
    consumer = next(part for part in alone.plane.services["patcher"].parts if hasattr(part, "handle"))
    await asyncio.gather(*(consumer.handle(event, TRACE, redelivered=True) for _ in range(3)))
    await alone.heard(event, other)
    await alone.attempt("success")
    rows = await alone.plane.sql("SELECT id FROM patcher.attempts")
    assert len(rows) == 1
    assert (await told(alone)).count("attempt_succeeded") == 1


async def test_a_decision_whose_cause_is_gone_starts_nothing(alone: PatcherAlone) -> None:
    incident = new_id()
    for status in (("mitigated", 1), ("escalated", 1), ("open", 2)):
        alone.ingest.incidents[incident] = status
        _, event = await alone.decide(incident=incident)
        await alone.heard(event)
    assert not await alone.plane.sql("SELECT 1 FROM patcher.attempts")


@pytest.mark.parametrize("action", [events_pb2.ACTION_NOTIFY_OPS, events_pb2.ACTION_NO_ACTION])
async def test_asking_a_person_is_nothing_to_carry_out(
    alone: PatcherAlone, action: events_pb2.Action.ValueType
) -> None:
    _, event = await alone.decide(action=action)
    await alone.heard(event)
    assert not await alone.plane.sql("SELECT 1 FROM patcher.attempts")


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"severity": events_pb2.SEVERITY_HIGH}, "SEVERITY"),
        ({"confidence": 0.5}, "CONFIDENCE"),
    ],
)
async def test_a_refusal_is_a_fact_with_its_gate_and_nothing_else_happens(
    alone: PatcherAlone, changes: dict[str, Any], gate: str
) -> None:
    await alone.decide(**changes)
    refused = (await alone.plane.wait_for_fact("attempt_refused")).attempt_refused
    assert refused.gate == gate
    assert "attempt_created" not in await told(alone)
    assert not alone.ingest.commands


async def test_an_unknown_release_fails_so_that_the_next_round_may_try_another(alone: PatcherAlone) -> None:
    await alone.decide(release="9.9.9")
    failed = (await alone.plane.wait_for_fact("attempt_failed")).attempt_failed
    assert (failed.failure, failed.to_release) == ("release_unknown", "9.9.9")


async def test_what_the_agent_cannot_do_is_not_sent_to_it(alone: PatcherAlone) -> None:
    plugin = plugin_of("p1")
    del plugin.capabilities[:]
    plugin.capabilities.append("restart")
    alone.ingest.plugins["p1"] = plugin
    await alone.decide()
    assert (await alone.plane.wait_for_fact("attempt_refused")).attempt_refused.gate == "CAPABILITY"


async def test_a_decision_about_a_release_that_no_longer_runs_is_cancelled(alone: PatcherAlone) -> None:
    await alone.decide(from_release="1.1.0")
    await alone.plane.wait_for_fact("attempt_cancelled")
    assert not alone.ingest.commands


async def test_a_restart_needs_no_staging_and_passes_when_the_plugin_lives(alone: PatcherAlone) -> None:
    alone.report(attempts=0)
    await alone.decide(
        action=events_pb2.ACTION_RESTART, release="", type="plugin_down", severity=events_pb2.SEVERITY_HIGH
    )
    attempt = await alone.attempt("success")
    assert (attempt.to_release, attempt.staging.tests_run) == ("1.2.0", 0)
    assert (await alone.command("restart")).release == "1.2.0"


async def test_a_rollback_without_a_known_release_goes_to_the_agents_other_slot(alone: PatcherAlone) -> None:
    await alone.decide(action=events_pb2.ACTION_ROLLBACK, release="", type="plugin_down")
    command = await alone.command("rollback")
    assert command.generation == 3, "the generation that is to be taken back"
    await alone.attempt("success")


async def test_a_rollback_knows_what_ran_before_from_its_own_successes(alone: PatcherAlone, tmp_path: Path) -> None:
    await alone.publish(archive(tmp_path / "old", smoke='print(\'{"test": "t", "ok": true}\')'), version="1.2.0")
    incident, _ = await alone.decide()
    await alone.attempt("success")
    alone.ingest.incidents[incident] = ("in_progress", 2)
    await alone.decide(incident=incident, round=2, action=events_pb2.ACTION_ROLLBACK, release="", from_release="1.2.3")
    attempt = await alone.attempt("success", incident=incident)
    await until(lambda: len([c for c in alone.ingest.commands if c.release == "1.2.0"]) > 0)
    attempt = await alone.attempt("success", incident=incident)
    assert (attempt.from_release, attempt.to_release) == ("1.2.3", "1.2.0")


class TestTheKillSwitch:
    """Held, never refused; and it goes on by itself."""

    async def test_a_decision_under_an_engaged_switch_waits_and_goes_on_when_it_is_released(
        self, alone: PatcherAlone
    ) -> None:
        await switch(alone, "merchants/m1", True)
        await alone.decide()
        held = await alone.attempt("pending")
        assert held.held_by == "KILL_SWITCH"
        assert not alone.ingest.commands
        await switch(alone, "merchants/m1", False)
        await alone.attempt("success")
        assert (await told(alone)).count("attempt_held") == 1

    async def test_an_update_on_its_way_is_not_applied_and_goes_on_later(self, alone: PatcherAlone) -> None:
        alone.ingest.carry_out = None
        await alone.decide()
        command = await alone.command("update")
        await switch(alone, "global", True)
        await alone.obey(command, "p1")
        held = await alone.attempt("staged")
        assert (held.held_by, held.permitted) == ("KILL_SWITCH", False)
        alone.ingest.carry_out = alone.obey
        await switch(alone, "global", False)
        await alone.attempt("success")
        assert (await alone.command("update", 2)).fence > command.fence

    async def test_engaging_can_take_back_what_is_being_watched(self, alone: PatcherAlone) -> None:
        alone.report(beats=1, attempts=2)
        await alone.decide()
        await alone.attempt("probation")
        answer = await switch(alone, "plugins/p1", True, revert_in_flight=True)
        assert [attempt.state for attempt in answer.in_flight] == ["rolling_back"]
        await alone.attempt("rolled_back")

    async def test_what_is_held_ends_when_its_incident_does(self, alone: PatcherAlone) -> None:
        await switch(alone, "global", True)
        incident, _ = await alone.decide()
        await alone.attempt("pending")
        await alone.tell(events_pb2.IncidentClosed(resolution="healthy"), source="ingest", incident=incident)
        await alone.attempt("cancelled")


async def test_a_second_attempt_for_a_busy_plugin_waits_until_the_first_is_over(alone: PatcherAlone) -> None:
    alone.report(beats=1, attempts=2)
    first, _ = await alone.decide()
    await alone.attempt("probation", incident=first)
    second, _ = await alone.decide(type="error_spike")
    waiting = await alone.attempt("pending", incident=second)
    assert waiting.held_by == "PLUGIN_BUSY"
    alone.report()
    await alone.attempt("success", incident=first)
    ended = await alone.attempt("cancelled", incident=second)
    assert "another release" in ended.reason


async def test_staging_results_are_kept_for_the_same_artifact_and_inputs(alone: PatcherAlone) -> None:
    await alone.decide(plugin="p1")
    await alone.attempt("success", plugin="p1")
    await alone.decide(plugin="p2")
    assert (await alone.attempt("success", plugin="p2")).staging.cached
    await alone.decide(plugin="p3", evidence=events_pb2.Evidence(failing_inputs=["another"]))
    assert not (await alone.attempt("success", plugin="p3")).staging.cached


async def test_an_agent_that_never_speaks_again_is_unconfirmed_until_a_beat_tells(
    backing: BackingServices, tmp_path: Path
) -> None:
    alone = PatcherAlone(backing, environ={"PATCHER_DEAD_MAN_SECONDS": "6"})
    try:
        await alone.start()
        await alone.publish(archive(tmp_path / "release"))
        await alone.decide()
        command = await alone.command("update")
        assert (await alone.ask(command)).granted
        alone.report()
        alone.run("p1", command)
        await alone.finish(command, "applied")
        await alone.attempt("committing")
        await alone.command("commit")
        await alone.attempt("unconfirmed", timeout=40)
        alone.run("p1", command)
        await alone.attempt("success")
        assert (await told(alone)).count("attempt_unconfirmed") == 1
    finally:
        await alone.stop()


class TestPeople:
    """What operators take back."""

    async def test_a_success_that_still_runs_can_be_taken_back(self, alone: PatcherAlone) -> None:
        await alone.decide()
        attempt = await alone.attempt("success")
        request = patcher_pb2.RollBackAttemptRequest(name=attempt.name, reason="no good", request_id=new_id())
        await alone.stub.RollBackAttempt(request, timeout=5)
        await alone.attempt("rolled_back")

    async def test_a_success_that_was_followed_by_another_cannot(self, alone: PatcherAlone) -> None:
        await alone.decide()
        attempt = await alone.attempt("success")
        alone.ingest.plugins["p1"].generation += 1
        request = patcher_pb2.RollBackAttemptRequest(name=attempt.name, reason="no good", request_id=new_id())
        with pytest.raises(Refused) as refused:
            await alone.stub.RollBackAttempt(request, timeout=5)
        assert refused.value.reason == "ATTEMPT_OUTDATED"

    async def test_what_is_over_cannot_be_cancelled(self, alone: PatcherAlone) -> None:
        await alone.decide()
        attempt = await alone.attempt("success")
        request = patcher_pb2.CancelAttemptRequest(name=attempt.name, reason="no", request_id=new_id())
        with pytest.raises(Refused) as refused:
            await alone.stub.CancelAttempt(request, timeout=5)
        assert refused.value.reason == "ATTEMPT_NOT_CANCELLABLE"


async def test_the_history_cannot_be_rewritten(alone: PatcherAlone) -> None:
    await alone.decide()
    await alone.attempt("success")
    for statement in ("UPDATE patcher.attempt_history SET reason = ''", "DELETE FROM patcher.attempt_history"):
        with pytest.raises(Exception, match="append-only"):
            await alone.plane.sql(statement)


async def test_words_that_come_before_or_after_their_time_change_nothing(alone: PatcherAlone) -> None:
    await alone.decide()
    attempt = await alone.attempt("success")
    update, commit = await alone.command("update"), await alone.command("commit")
    late = [
        await alone.finish(update, "applied"),
        await alone.finish(commit, "expired"),
        await alone.finish(update, "failed"),
    ]
    unknown = await alone.tell(
        events_pb2.CommandFinished(command=new_id(), attempt=new_id(), kind="update", outcome="applied"),
        source="ingest",
    )
    await alone.heard(*late, unknown)
    assert (await alone.attempt("success")).history == attempt.history
