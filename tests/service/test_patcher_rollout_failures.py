"""What a rollout lives through: restarts, replicas, facts told twice, plugins that are away, people and gates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.names import new_id
from prunella.v1 import events_pb2, ingest_pb2, patcher_pb2
from tests.service.patcher_alone import archive
from tests.service.rollout_fleet import Fleet

HOUR = 3_600
OVERLAPS = """
SELECT max(flying) AS most FROM (
    SELECT count(*) AS flying FROM patcher.attempts a JOIN patcher.attempts b
        ON b.rollout = a.rollout AND b.create_time <= a.create_time AND coalesce(b.end_time, 'infinity') > a.create_time
    WHERE a.rollout <> '' GROUP BY a.id) AS moments
"""


@pytest.fixture
async def fleet(backing: BackingServices, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = await Fleet.of(backing, tmp_path, 8)
    try:
        yield made
    finally:
        await made.stop()


async def test_two_patchers_one_of_which_dies_and_comes_back_never_exceed_the_budget(fleet: Fleet) -> None:
    await fleet.plane.start_service("patcher", replica=True)
    made = await fleet.create(waves=["2", "100%"], budget=3)

    async def half_way() -> bool:
        return (await fleet.rollout(made.name)).figures.healthy >= 3

    await until(half_way, 40.0, what="three plugins are healthy")
    await fleet.plane.stop_service("patcher replica")
    await fleet.plane.stop_service("patcher")
    await fleet.plane.start_service("patcher")
    done = await fleet.reaches(made.name, "succeeded")
    assert (done.figures.healthy, done.figures.counted_against) == (8, 0)
    rows = await fleet.plane.sql(OVERLAPS)
    assert 1 <= rows[0].most <= 3
    tries = await fleet.plane.sql("SELECT plugin, count(*) AS tries FROM patcher.attempts GROUP BY plugin")
    assert {row.tries for row in tries} == {1}, "nobody was started twice"


async def test_every_fact_told_again_changes_nothing(fleet: Fleet) -> None:
    fleet.ingest.bad, fleet.ingest.luck = {"1.2.3"}, 2
    made = await fleet.create(waves=["100%"], budget=2)
    await fleet.reaches(made.name, "halted")
    before, members = await fleet.rollout(made.name), await fleet.members(made.name)
    facts = await fleet.plane.facts()
    await fleet.plane.clear_inbox()

    async def heard_again() -> bool:
        rows = await fleet.plane.sql(
            "SELECT 1 FROM bus.facts f WHERE fact LIKE 'attempt_%' AND NOT EXISTS (SELECT 1 FROM bus.inbox i "
            "WHERE i.consumer = 'patcher' AND i.event_id = f.id) AND fact IN ('attempt_succeeded', "
            "'attempt_rolled_back', 'attempt_failed')"
        )
        return not rows

    await until(heard_again, 20.0, what="the patcher has heard every end of an attempt once more")
    assert await fleet.rollout(made.name) == before
    assert await fleet.members(made.name) == members
    assert len(await fleet.plane.facts()) == len(facts)


async def test_a_plugin_that_is_away_is_left_out_and_joins_when_it_returns(fleet: Fleet) -> None:
    fleet.ingest.plugins["p8"].connected = False
    made = await fleet.create(waves=["2", "100%"])
    done = await fleet.reaches(made.name, "succeeded")
    assert (done.figures.healthy, done.figures.offline, done.figures.success_rate) == (7, 1, 1.0)
    assert "1 offline" in done.reason
    fleet.ingest.plugins["p8"].connected = True

    async def joined() -> bool:
        return (await fleet.members(made.name))["p8"].state == "healthy"

    await until(joined, 20.0, what="p8 has the build")
    fleet.ingest.plugins["p9"] = ingest_pb2.Plugin()
    fleet.ingest.plugins["p9"].CopyFrom(fleet.ingest.plugins["p8"])
    fleet.ingest.plugins["p9"].name, fleet.ingest.plugins["p9"].release = "plugins/p9", "1.2.0"
    await fleet.create(waves=["100%"])
    assert "closed" in await fleet.told(), "a newer rollout takes its place"


async def test_a_healthy_plugin_that_falls_ill_while_the_wave_soaks_counts_against_the_build(fleet: Fleet) -> None:
    made = await fleet.create(waves=["4", "100%"], soak_seconds=HOUR)
    await fleet.reaches(made.name, "soaking")
    touched = [name for name, member in (await fleet.members(made.name, "healthy")).items() if member.wave == 1]
    for plugin in touched[:3]:
        told = events_pb2.IncidentOpened(type="error_spike", package="checkout", release="1.2.3", round=1)
        await fleet.tell(told, source="ingest", incident=new_id(), plugin=plugin)
    done = await fleet.reaches(made.name, "halted")
    assert "plugins broke" in done.reason
    assert {fleet.ingest.plugins[plugin].release for plugin in touched} == {"1.2.0"}


async def test_a_release_that_fails_its_own_tests_pauses_the_rollout_before_anybody_gets_it(
    fleet: Fleet, tmp_path: Path
) -> None:
    smoke = 'import json\nprint(json.dumps({"test": "starts", "ok": False, "detail": "no till"}))\n'
    await fleet.publish(archive(tmp_path / "bad", smoke=smoke), version="1.3.0")
    made = await fleet.create(target="1.3.0")
    paused = await fleet.reaches(made.name, "paused")
    assert "tests passed" in paused.reason
    assert not fleet.ingest.commands
    assert {member.state for member in (await fleet.members(made.name)).values()} == {"waiting"}


async def test_a_plugin_whose_attempt_a_person_cancels_is_left_out_with_the_reason(fleet: Fleet) -> None:
    engage = patcher_pb2.EngageKillSwitchRequest(scope="plugins/p1", reason="leave it alone", request_id=new_id())
    await fleet.stub.EngageKillSwitch(engage, timeout=10)
    made = await fleet.create(waves=["100%"])

    async def held() -> str:
        page = await fleet.stub.ListAttempts(patcher_pb2.ListAttemptsRequest(plugin="p1"), timeout=5)
        return page.attempts[0].name if page.attempts and page.attempts[0].held_by == "KILL_SWITCH" else ""

    name = await until(held, 90.0, what="the attempt of p1 waits for the kill switch")
    cancel = patcher_pb2.CancelAttemptRequest(name=name, reason="not this one", request_id=new_id())
    await fleet.stub.CancelAttempt(cancel, timeout=5)
    done = await fleet.reaches(made.name, "succeeded")
    assert (done.figures.healthy, done.figures.skipped) == (7, 1)
    left = (await fleet.members(made.name, "skipped"))["p1"]
    assert (left.reason, fleet.ingest.plugins["p1"].release) == ("not this one", "1.2.0")


async def test_plugins_that_were_not_touched_are_compared_and_one_that_leaves_is_listed(fleet: Fleet) -> None:
    made = await fleet.create(waves=["2", "100%"], soak_seconds=HOUR)
    await fleet.reaches(made.name, "soaking")
    untouched = sorted(await fleet.members(made.name, "waiting"))

    async def compared() -> tuple[int, int]:
        rows = await fleet.plane.sql("SELECT detail->'control' AS control FROM patcher.rollouts")
        return rows[0].control["exposed"], rows[0].control["broken"]

    async def watched() -> bool:
        rows = await fleet.plane.sql("SELECT plugin FROM patcher.rollout_control_group WHERE wave = 1")
        return {row.plugin for row in rows} >= set(untouched)

    await until(watched, what="the control group is watched")
    assert (await compared())[1] == 0
    for plugin in untouched[:3]:
        fleet.ingest.plugins[plugin].open_incidents.append("incidents/i")

    async def broken() -> bool:
        return (await compared())[1] == 3

    await until(broken, what="three of the control group broke")
    exposed = (await compared())[0]
    assert 3 <= exposed <= 6
    for plugin in untouched[:3]:
        del fleet.ingest.plugins[plugin].open_incidents[:]
    fleet.ingest.plugins[untouched[-1]].state = "retired"

    async def listed() -> str:
        left = await fleet.members(made.name, "skipped")
        return left[untouched[-1]].reason if untouched[-1] in left else ""

    assert await until(listed, what="who left is listed") == "the plugin left"
    assert (await compared())[1] == 3, "what was counted stays counted"
