"""A rollout brings a build to many plugins through the patcher's real doors, and takes it back when it breaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices
from tests.service.rollout_fleet import Fleet


@pytest.fixture
async def fleet(backing: BackingServices, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = await Fleet.of(backing, tmp_path, 6)
    try:
        yield made
    finally:
        await made.stop()


async def test_a_good_build_passes_three_waves_and_reaches_every_plugin(fleet: Fleet) -> None:
    made = await fleet.create()
    assert (made.state, [wave.plugins for wave in made.waves]) == ("running", [2, 1, 3])
    done = await fleet.reaches(made.name, "succeeded")
    assert done.reason == "1.2.3 runs on 6 plugins; 0 broke"
    assert (done.figures.healthy, done.figures.success_rate, done.figures.rollback_rate) == (6, 1.0, 0.0)
    assert {plugin.release for plugin in fleet.ingest.plugins.values()} == {"1.2.3"}
    assert await fleet.told() == [
        "created", "wave_started", "wave_passed", "wave_started", "wave_passed", "wave_started", "wave_passed",
        "succeeded",
    ]  # fmt: skip
    attempts = await fleet.plane.sql("SELECT rollout, incident, decision, state FROM patcher.attempts")
    assert {(row.rollout, row.incident, row.decision, row.state) for row in attempts} == {
        (made.name.removeprefix("rollouts/"), "", "", "success")
    }
    assert not await fleet.plane.sql("SELECT 1 FROM patcher.rollout_slots")
    assert not await fleet.plane.sql("SELECT 1 FROM patcher.rollout_members WHERE reserved")


async def test_a_bad_build_is_halted_in_the_first_wave_and_the_wave_goes_back(fleet: Fleet) -> None:
    fleet.ingest.bad = {"1.2.3"}
    made = await fleet.create(waves=["5", "100%"], budget=1)
    done = await fleet.reaches(made.name, "halted")
    assert done.wave == 1
    assert done.reason.startswith("wave 1 is halted: 2 of 2 plugins broke (100 %)")
    members = await fleet.members(made.name)
    assert {member.state for member in members.values() if member.wave == 2} == {"waiting"}
    assert {member.state for member in members.values() if member.wave == 1} <= {"rolled_back", "reverted", "waiting"}
    assert {plugin.release for plugin in fleet.ingest.plugins.values()} == {"1.2.0"}
    assert (await fleet.told())[-2:] == ["halted", "rolled_back"]
    assert not await fleet.plane.sql("SELECT 1 FROM patcher.rollout_slots")
    live = await fleet.plane.sql("SELECT 1 FROM patcher.attempts WHERE end_time IS NULL")
    assert not live, "every attempt has ended"


async def test_what_was_well_goes_back_with_the_wave_it_was_in(fleet: Fleet) -> None:
    fleet.ingest.bad, fleet.ingest.luck = {"1.2.3"}, 2
    made = await fleet.create(waves=["100%"], budget=1)
    await fleet.reaches(made.name, "halted")
    members = await fleet.members(made.name)
    lucky = {members[plugin].state for plugin in fleet.ingest.lucky}
    assert lucky == {"rolled_back"}
    rows = await fleet.plane.sql(
        "SELECT reason FROM bus.facts WHERE fact = 'attempt_rolling_back' AND actor = 'patcher'"
    )
    assert any("the rollout goes back" in row.reason for row in rows)
