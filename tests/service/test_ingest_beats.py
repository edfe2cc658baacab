"""Beats through the stream: durable before they are acknowledged, counted as differences, judged at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from deploy.local.testing import ManualClock, Servers
from libs.common import names
from libs.common.database import Transaction
from services.ingest.plugin_state import PluginState
from services.ingest.store import plugin_state
from tests.service.ingest_alone import Alone


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


async def test_what_is_acknowledged_is_stored(alone: Alone) -> None:
    agent = await alone.agent("shop-1")
    await agent.beats(3, webhook_attempts=10, errors=1, numbers={"queue": 2.0}, environment={"cms": "wp"})
    plugin = await alone.plugin(agent)
    assert (plugin.label, plugin.beats, plugin.errors_in_window, plugin.connected) == ("shop-1", 3, 3, True)
    assert dict(plugin.numbers) == {"queue": 2.0}
    assert dict(plugin.environment) == {"cms": "wp"}


async def test_a_bad_beat_opens_one_incident_with_its_figures_and_trace(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1, webhook_attempts=25)
    await agent.beats(3, webhook_attempts=25, webhook_failures=15, failing_inputs=["{}"])
    (incident,) = await alone.incidents(agent)
    assert (incident.type, incident.severity, incident.state, incident.round) == ("webhook_fail_rate", 2, "open", 1)
    assert incident.evidence.summary == "webhook_fail_rate 0.60 > 0.30 over 25 attempts"
    assert list(incident.evidence.failing_inputs) == ["{}"]
    assert len(incident.trace_id) == 32
    (told,) = await alone.plane.facts("incident_opened", plugin=agent.plugin)
    assert told.incident_opened.evidence.figures["webhook_fail_rate"] == 0.6
    (row,) = await alone.plane.sql(
        "SELECT traceparent FROM bus.facts WHERE fact = 'incident_opened' AND plugin = :plugin", plugin=agent.plugin
    )
    assert incident.trace_id in row.traceparent


async def test_an_incident_closes_after_healthy_windows_and_goes_on_when_it_comes_back_soon(
    servers: Servers,
) -> None:
    clock = ManualClock()
    async with Alone.on(servers, clock) as alone:
        agent = await alone.agent()
        await agent.beats(1, webhook_attempts=20, webhook_failures=20)
        for _ in range(5):
            clock.advance(1.0)
            await agent.beats(1, webhook_attempts=20)
        (incident,) = await alone.incidents(agent)
        assert (incident.state, incident.resolution) == ("closed", "healthy for 5 windows")
        clock.advance(1800.0)
        await agent.beats(1, webhook_attempts=20, webhook_failures=20)
        (again,) = await alone.incidents(agent)
        assert (again.name, again.state, again.reopened, again.round) == (incident.name, "open", 1, 2)
        (told,) = await alone.plane.facts("incident_reopened", plugin=agent.plugin)
        assert (told.incident, told.incident_reopened.reopened) == (names.id_of(incident.name), 1)
        for _ in range(5):
            clock.advance(1.0)
            await agent.beats(1, webhook_attempts=20)
        clock.advance(1801.0)
        await agent.beats(1, webhook_attempts=20, webhook_failures=20)
        assert [one.state for one in await alone.incidents(agent)] == ["open", "closed"], "that is news"


async def test_beats_kept_from_a_better_past_close_nothing(servers: Servers) -> None:
    async with Alone.on(servers, ManualClock()) as alone:
        agent = await alone.agent()
        await agent.beats(1, webhook_attempts=20, webhook_failures=20)
        await agent.beats(20, webhook_attempts=20)
        (incident,) = await alone.incidents(agent)
        assert incident.state == "open"


async def test_a_state_forgotten_while_others_are_read_is_no_unknown_plugin(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, cold = await alone.agent(), await alone.agent()
    await known.beats(1)
    committer = alone.ctx.committer
    load = plugin_state.load

    async def loads_slowly(tx: Transaction, ids: Iterable[str]) -> dict[str, PluginState]:
        found = await load(tx, ids)
        committer.forget(known.plugin)
        return found

    monkeypatch.setattr(plugin_state, "load", loads_slowly)
    for _ in range(5):
        committer.forget(cold.plugin)
        await asyncio.gather(known.beats(1), cold.beats(1))
    assert not [message for message in known.received if message.WhichOneof("message") == "disconnect"]
