"""A rollout through the whole plane: real sessions, real permits, a dozen agents, a good build and a bad one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import FakeAgent, Plane, until
from libs.common.names import new_id
from prunella.v1 import patcher_pb2, patcher_pb2_grpc

AGENTS = 12
OVERLAPS = """
SELECT max(flying) AS most FROM (
    SELECT count(*) AS flying FROM patcher.attempts a JOIN patcher.attempts b
        ON b.rollout = a.rollout AND b.create_time <= a.create_time AND coalesce(b.end_time, 'infinity') > a.create_time
    WHERE a.rollout <> '' GROUP BY a.id) AS moments
"""


@contextlib.asynccontextmanager
async def living(plane: Plane) -> AsyncIterator[list[FakeAgent]]:
    """So many connected agents that beat each second."""
    agents = [await plane.agent(f"shop-{number}") for number in range(1, AGENTS + 1)]

    async def beat() -> None:
        while True:
            for agent in agents:
                if agent.session.connected:
                    agent.beat()
            await asyncio.sleep(1.0)

    beating = asyncio.create_task(beat())
    try:
        for agent in agents:
            await agent.acknowledged()
        yield agents
    finally:
        beating.cancel()
        await asyncio.wait({beating})


def stub(plane: Plane) -> Any:
    return patcher_pb2_grpc.PatcherServiceStub(plane.channel("patcher"))


async def create(plane: Plane, *waves: str, budget: int = 4) -> str:
    settings = patcher_pb2.RolloutSettings(waves=waves, soak=Duration(seconds=1), exposure=2, budget=budget)
    request = patcher_pb2.CreateRolloutRequest(
        package="relay", target="1.2.3", settings=settings, reason="the signature is mended", request_id=new_id()
    )
    return str((await stub(plane).CreateRollout(request, timeout=10)).rollout.name)


async def reaches(plane: Plane, name: str, state: str, timeout: float = 90.0) -> patcher_pb2.Rollout:
    async def look() -> patcher_pb2.Rollout | None:
        found = (await stub(plane).GetRollout(patcher_pb2.GetRolloutRequest(name=name), timeout=5)).rollout
        return found if found.state == state else None

    return await until(look, timeout, what=f"the rollout is {state}")  # type: ignore[no-any-return]


async def test_a_good_build_reaches_everybody_although_the_patcher_is_restarted_on_the_way(relay_plane: Plane) -> None:
    async with living(relay_plane) as agents:
        away = agents[-1]
        await away.session.abort()

        async def unheard() -> bool:
            rows = await relay_plane.sql("SELECT connected FROM ingest.plugin_state WHERE id = :id", id=away.plugin)
            return not rows[0].connected

        await until(unheard, what="ingest knows that one is away")
        name = await create(relay_plane, "3", "50%", "100%")

        async def first_wave() -> bool:
            return len(await relay_plane.facts("rollout_wave_passed")) == 1

        await until(first_wave, 90.0, what="the first wave passed")
        await relay_plane.stop_service("patcher")
        await relay_plane.start_service("patcher")
        done = await reaches(relay_plane, name, "succeeded")
        assert (done.figures.healthy, done.figures.counted_against, done.figures.offline) == (AGENTS - 1, 0, 1)
        assert {agent.release for agent in agents[:-1]} == {"1.2.3"}
        assert len(await relay_plane.facts("rollout_wave_passed")) == 3
        assert (await relay_plane.sql(OVERLAPS))[0].most <= 4
        assert not await relay_plane.facts("attempt_failed", "attempt_rolled_back", "attempt_unconfirmed")


async def test_a_bad_build_is_halted_in_the_first_wave_and_taken_back_from_whoever_has_it(relay_plane: Plane) -> None:
    async with living(relay_plane) as agents:
        for agent in agents:
            agent.heals = False
        name = await create(relay_plane, "5", "100%")
        done = await reaches(relay_plane, name, "halted")
        assert done.wave == 1
        assert "plugins broke" in done.reason
        assert done.figures.counted_against <= 5

        def back() -> bool:
            return {agent.release for agent in agents} == {"1.2.0"}

        await until(back, what="every agent runs what it ran before")
        rows = await relay_plane.sql("SELECT DISTINCT state FROM patcher.attempts WHERE rollout <> ''")
        assert {row.state for row in rows} <= {"rolled_back", "cancelled"}
        halted = await relay_plane.wait_for_fact("rollout_halted")
        assert halted.rollout_halted.counts.counted_against == done.figures.counted_against
