"""telemetry_anomaly through the service: a shift that no threshold sees is found, and what befalls everybody is not."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import Servers
from libs.common.clock import ManualClock
from prunella.v1 import events_pb2, ingest_pb2
from services.ingest.anomaly.schedule import LAYOUT
from tests.service.ingest_alone import Agent, Alone

HOUR = 3600.0
USUAL, COMMON, SHIFTED = ({"webhook_attempts": 100, "webhook_failures": count} for count in (2, 6, 15))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock, INGEST_SILENCE_SECONDS="86000") as made:
        yield made


async def beat(alone: Alone, agents: list[Agent], count: int = 1, seconds: float = 30.0, **values: Any) -> None:
    """Beats of all of them, so far apart; nothing is kept in memory in between."""
    for _ in range(count):
        alone.ctx.clock.advance(seconds)
        for agent in agents:
            alone.ctx.committer.forget(agent.plugin)
        await asyncio.gather(*(agent.beats(1, **values) for agent in agents))


async def warmed(alone: Alone, count: int) -> list[Agent]:
    """Plugins that have beaten for more than an hour."""
    agents = [await alone.agent() for _ in range(count)]
    await beat(alone, agents, 9, 600, **USUAL)
    return agents


async def anomalies(alone: Alone, agent: Agent) -> list[ingest_pb2.Incident]:
    found = await alone.incidents(agent)
    assert {one.type for one in found} <= {"telemetry_anomaly"}
    return found


async def test_a_shift_below_every_threshold_opens_one_incident_and_what_is_usual_again_closes_it(alone: Alone) -> None:
    (agent,) = agents = await warmed(alone, 1)
    await beat(alone, agents, 3, **SHIFTED)
    assert await anomalies(alone, agent) == [], "a few windows are no shift"
    await beat(alone, agents, 3, **SHIFTED)
    (incident,) = await anomalies(alone, agent)
    assert (incident.state, incident.severity) == ("open", events_pb2.SEVERITY_MEDIUM)
    assert "stays above what is usual for this plugin" in incident.evidence.summary
    figures = incident.evidence.figures
    assert (figures["webhook_fail_rate"], figures["usual_webhook_fail_rate"] < 0.04) == (0.15, True)
    await beat(alone, agents, 3, **USUAL)
    await beat(alone, agents, 1, **SHIFTED)
    assert [one.state for one in await anomalies(alone, agent)] == ["open"], "it is suspicious until it is long well"
    await beat(alone, agents, 16, **USUAL)
    assert [one.state for one in await anomalies(alone, agent)] == ["closed"]
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1
    await beat(alone, agents, 6, **SHIFTED)
    (again,) = await anomalies(alone, agent)
    assert (again.state, again.reopened) == ("open", 1), "what was bad is not usual now, and the incident goes on"


async def test_a_beat_that_comes_again_and_again_is_no_evidence(alone: Alone) -> None:
    (agent,) = agents = await warmed(alone, 1)
    await beat(alone, agents, 1, **SHIFTED)
    for _ in range(8):
        alone.ctx.clock.advance(30)
        agent.sequence -= 1
        await agent.send(agent.beat())
    # What was sent before it is stored before it.
    await beat(alone, agents, 1, **USUAL)
    assert await anomalies(alone, agent) == []


async def test_what_befalls_all_plugins_of_a_release_accuses_none_and_what_befalls_one_does(alone: Alone) -> None:
    agents = await warmed(alone, 40)
    halves = [zlib.crc32(agent.plugin.encode()) & 1 for agent in agents]
    assert min(halves.count(0), halves.count(1)) >= 8, "enough peers in each half"
    await beat(alone, agents, 15, **COMMON)
    assert [await anomalies(alone, agent) for agent in agents] == [[]] * len(agents)
    await beat(alone, agents, 20, **USUAL)
    one, *others = agents
    for _ in range(8):
        await beat(alone, others, 1, 1, **USUAL)
        await beat(alone, [one], 1, 29, **SHIFTED)
    (incident,) = await anomalies(alone, one)
    assert "and its peers are as usual" in incident.evidence.summary
    assert [await anomalies(alone, agent) for agent in others] == [[]] * len(others)


async def test_quiet_beats_leave_the_baseline_alone(alone: Alone) -> None:
    (agent,) = agents = [await alone.agent()]

    async def kept() -> bytes:
        text = f"SELECT baseline FROM ingest.plugin_state WHERE id = '{agent.plugin}'"  # noqa: S608 - our own id
        return bytes((await alone.plane.sql(text))[0][0])

    await beat(alone, agents, 1, webhook_attempts=5)
    first = await kept()
    assert len(first) > LAYOUT.size - 1
    await beat(alone, agents, 20, webhook_attempts=5)
    assert await kept() == first, "a quarter of an hour of quiet is one sample, at its end"
    await beat(alone, agents, 12, webhook_attempts=5)
    assert await kept() != first
