"""A rollout brings a build to many plugins through the patcher's real doors, and takes it back when it breaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common.testing import Ground
from tests.service.rollout_fleet import Fleet


@pytest.fixture
async def fleet(ground: Ground, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = await Fleet.of(ground, tmp_path, 6)
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
    assert not await fleet.plane.sql("SELECT 1 FROM patcher.rollout_members WHERE holds")
