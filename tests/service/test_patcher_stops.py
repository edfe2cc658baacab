"""Stopping and taking back: kill switches, storms, and everything that was applied since a moment."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from deploy.local.testing import BackingServices, until
from libs.common.errands import Errand
from libs.common.errors import Invalid
from libs.common.names import new_id
from prunella.v1 import patcher_pb2
from services.patcher.attempt import State
from services.patcher.errands.commands import stopped
from services.patcher.store import slots
from tests.service.governance import of, set_policy, storm
from tests.service.patcher_alone import MAIN, PatcherAlone, archive


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        await set_policy(patcher, require_staging=False)
        yield patcher
    finally:
        await patcher.stop()


async def engage(alone: PatcherAlone, scope: str, *, revert: bool = False) -> patcher_pb2.EngageKillSwitchResponse:
    request = patcher_pb2.EngageKillSwitchRequest(
        scope=scope, reason="smoke", request_id=f"engage {scope}", revert_in_flight=revert
    )
    return await alone.stub.EngageKillSwitch(request, timeout=10)


async def release(alone: PatcherAlone, scope: str, reason: str = "over") -> None:
    await alone.release_switch(scope, reason)


@pytest.mark.parametrize("scope", ["global", "merchants/m1", "plugins/p1", "actions/patch"])
async def test_engaging_withdraws_commands_without_a_permit_and_releasing_goes_on(
    alone: PatcherAlone, scope: str
) -> None:
    await alone.decide()
    command = await alone.command("update")
    await of(alone, "p1", "applying")
    await engage(alone, scope)
    held = await of(alone, "p1", "staged", held_by="KILL_SWITCH")
    assert held.reason == f"the kill switch {scope} is engaged"
    await until(lambda: alone.ingest.withdrawn == [command.id], what="the command is withdrawn")
    assert not await alone.plane.sql("SELECT 1 FROM patcher.slots")
    with pytest.raises(Invalid):
        await release(alone, scope, reason=" ")
    await release(alone, scope)
    assert (await alone.ask(await alone.command("update", 2))).granted


@pytest.mark.parametrize("scope", ["global", "storms/checkout/webhook_fail_rate"])
async def test_a_stop_that_comes_late_stops_nothing_that_was_let_go_on(alone: PatcherAlone, scope: str) -> None:
    await alone.decide()
    command = await alone.command("update")
    await of(alone, "p1", "applying")
    late = Errand(new_id(), "stop", scope, {"gate": "GATE", "reason": "it was on a while ago"}, 1, 1, "")
    await alone.ctx.database.transaction(lambda tx: stopped(alone.ctx, tx, late, {}))
    assert (await alone.ask(command)).granted


async def test_what_is_in_flight_is_listed_and_goes_back_when_asked(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report(beats=1, attempts=0)
    await alone.decide(plugin="p1")
    await of(alone, "p1", "probation")
    answer = await engage(alone, "plugins/p1", revert=True)
    assert [(each.plugin, each.state) for each in answer.in_flight] == [("p1", "rolling_back")]
    await of(alone, "p1", "rolled_back")


async def test_a_storm_holds_what_it_is_about_and_nothing_else_and_never_rolling_back(alone: PatcherAlone) -> None:
    await alone.decide(plugin="p1")
    await of(alone, "p1", "applying")
    command = await alone.command("update")
    await alone.decide(plugin="p2")
    permitted = await alone.command("update", 2)
    assert (await alone.ask(permitted, "p2")).granted
    began = await storm(alone)
    await alone.heard(began)
    stopped = await of(alone, "p1", "staged", held_by="STORM")
    assert stopped.reason == began.reason
    await until(lambda: alone.ingest.withdrawn == [command.id], what="the command is withdrawn")
    await alone.decide(plugin="p3")
    await of(alone, "p3", "pending", held_by="STORM")
    await alone.decide(plugin="p4", type="error_spike")
    await of(alone, "p4", "applying")
    back = patcher_pb2.RollBackAttemptRequest(name=f"attempts/{permitted.attempt}", reason="a test", request_id="b")
    await alone.stub.RollBackAttempt(back, timeout=5)
    await of(alone, "p2", "rolling_back")
    await alone.heard(await storm(alone, ended=True), await storm(alone))
    await of(alone, "p1", "applying")
    await of(alone, "p3", "applying")


async def test_a_storm_that_began_after_the_command_denies_its_permit(alone: PatcherAlone) -> None:
    await alone.decide()
    command = await alone.command("update")
    await alone.ctx.database.transaction(
        lambda tx: tx.run(
            "INSERT INTO patcher.storms (storm, package, type, reason) "
            "VALUES ('s', 'checkout', 'webhook_fail_rate', '')"
        )
    )
    assert (await alone.ask(command)).gate == "STORM"
    await alone.finish(command, "refused", detail="STORM")
    await of(alone, "p1", "staged", held_by="STORM")


def since(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told


async def recent(alone: PatcherAlone, moment: datetime) -> patcher_pb2.RollBackRecentResponse:
    request = patcher_pb2.RollBackRecentRequest(since_time=since(moment), reason="all bad", request_id=new_id())
    return await alone.stub.RollBackRecent(request, timeout=10)


async def test_everything_since_a_moment_is_really_taken_back_and_the_rest_named(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report()
    began = datetime.now(UTC) - timedelta(minutes=1)
    for plugin in ("p1", "p2", "p3"):
        await alone.decide(plugin=plugin)
        await of(alone, plugin, "success")
    moved = alone.ingest.plugins["p3"]
    moved.generation += 7
    alone.report(beats=1, attempts=0)
    await alone.decide(plugin="p4")
    await of(alone, "p4", "probation")
    answer = await recent(alone, began)
    assert sorted(each.plugin for each in answer.attempts) == ["p1", "p2", "p4"]
    assert [each.reason for each in answer.refusals] == ["ATTEMPT_OUTDATED"]
    for plugin in ("p1", "p2", "p4"):
        ended = await of(alone, plugin, "rolled_back")
        assert any("all bad" in step.reason for step in ended.history)
    rollbacks = [command for command in alone.ingest.commands if command.kind == 2]
    assert len(rollbacks) == 3
    assert not (await recent(alone, began)).attempts, "there is nothing left to take back"


async def test_a_plugin_goes_back_one_attempt_at_a_time(alone: PatcherAlone, tmp_path: Path) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report()
    await alone.publish(archive(tmp_path / "next", main=f"{MAIN}\n# next"), version="1.2.4")
    began = datetime.now(UTC) - timedelta(minutes=1)
    await alone.decide()
    await of(alone, "p1", "success")
    await alone.decide(from_release="1.2.3", release="1.2.4")
    await until(lambda: len(alone.ingest.commands) >= 3, what="it is patched again")
    await of(alone, "p1", "success")
    answer = await recent(alone, began)
    assert [each.to_release for each in answer.attempts] == ["1.2.4"]
    assert [each.reason for each in answer.refusals] == ["LATER_ATTEMPT"]


async def test_nobody_waits_for_a_restart_to_go_back(alone: PatcherAlone) -> None:
    alone.ingest.carry_out = alone.obey
    alone.report()
    began = datetime.now(UTC) - timedelta(minutes=1)
    await alone.decide()
    await of(alone, "p1", "success")
    await alone.decide(from_release="1.2.3", action=4, release="")
    await until(lambda: len(alone.ingest.commands) >= 3, what="it is restarted")
    await of(alone, "p1", "success")
    answer = await recent(alone, began)
    assert sorted(each.reason for each in answer.refusals) == ["ATTEMPT_OUTDATED", "NOTHING_TO_ROLL_BACK"]


@pytest.mark.parametrize("days", [-1, 8])
async def test_a_moment_out_of_bounds_takes_nothing_back(alone: PatcherAlone, days: int) -> None:
    with pytest.raises(Invalid) as refused:
        await recent(alone, datetime.now(UTC) - timedelta(days=days))
    assert (refused.value.reason, refused.value.field) == ("SINCE_OUTSIDE", "since_time")


async def test_a_slot_whose_holder_is_over_is_freed_and_no_other(alone: PatcherAlone) -> None:
    await alone.decide()
    await of(alone, "p1", "applying")
    await alone.ctx.database.transaction(lambda tx: slots.take(tx, "checkout", "nobody", "m1", 5))
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert await alone.ctx.database.transaction(lambda tx: slots.reclaim(tx, later)) == 1
    (left,) = await alone.plane.sql("SELECT holder FROM patcher.slots")
    (live,) = await alone.plane.sql("SELECT id FROM patcher.attempts WHERE state = 'applying'")
    assert (left.holder, State.APPLYING) == (live.id, "applying")
