"""Many plugins of a package ill alike: one storm, one page; nobody is escalated, and afterwards everything goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import Servers
from libs.common.bus import fact
from libs.common.clock import ManualClock
from libs.common.errors import Invalid, NotFound, Problem, Refused
from libs.common.names import new_id
from prunella.v1 import events_pb2, ingest_pb2
from tests.service.ingest_alone import Agent, Alone

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock, INGEST_STORM_LEAST="5", INGEST_SILENCE_SECONDS="86000") as made:
        yield made


async def fleet(alone: Alone, count: int) -> list[Agent]:
    return [await alone.agent() for _ in range(count)]


async def break_(agents: list[Agent]) -> None:
    """They fall ill at once, in one batch or several."""
    await asyncio.gather(*(agent.beats(1, webhook_attempts=20, webhook_failures=12) for agent in agents))


async def storms(alone: Alone, **filters: Any) -> list[ingest_pb2.Storm]:
    return list((await alone.ask().ListStorms(ingest_pb2.ListStormsRequest(**filters))).storms)


async def react(alone: Alone, message: Any, agent: Agent, incident: str) -> None:
    """Brings a fact of a sibling to its reaction twice."""
    event = fact("patcher", message, reason="because", plugin=agent.plugin, incident=incident)
    consumer = next(part for part in alone.plane.services["ingest"].parts if hasattr(part, "reactions"))
    for _ in range(2):
        await consumer.handle(event, TRACE)


async def incident(alone: Alone, agent: Agent) -> ingest_pb2.Incident:
    return (await alone.incidents(agent))[0]


async def test_five_of_six_plugins_ill_at_once_are_one_storm_with_one_fact(alone: Alone) -> None:
    agents = await fleet(alone, 6)
    await break_(agents[:4])
    assert await storms(alone) == []
    await break_(agents[4:5])
    (storm,) = await storms(alone, package="relay", state="ongoing")
    assert (storm.type, storm.plugins, storm.fleet, storm.state) == ("webhook_fail_rate", 5, 6, "ongoing")
    assert "5 of 6 relay plugins" in storm.reason
    await break_(agents[5:])
    assert len(await alone.plane.facts("storm_started")) == 1
    for agent in agents:
        assert (await incident(alone, agent)).storm == storm.name.removeprefix("storms/"), "each is part of it"


async def test_openings_in_many_batches_at_once_never_overlook_each_other(alone: Alone) -> None:
    agents = await fleet(alone, 8)
    await break_(agents)
    assert len(await storms(alone)) == 1
    assert len(await alone.plane.facts("storm_started")) == 1


async def test_a_few_of_a_large_fleet_are_no_storm_and_neither_are_other_packages_or_types(alone: Alone) -> None:
    agents = await fleet(alone, 5)
    for _ in range(50):
        await alone.enrolled()
    await break_(agents)
    assert await storms(alone) == [], "5 of 55 are less than a tenth and one"
    assert await storms(alone, package="cart") == []


async def test_a_storm_escalates_nobody_until_it_is_over_and_then_gives_time_anew(
    alone: Alone, clock: ManualClock
) -> None:
    agents = await fleet(alone, 5)
    await break_(agents)
    handed = (await incident(alone, agents[0])).name.removeprefix("incidents/")
    ask_people = events_pb2.DecisionMade(
        decision="d-1", round=1, action=events_pb2.ACTION_NOTIFY_OPS, explanation="nobody knows a remedy"
    )
    await react(alone, ask_people, agents[0], handed)
    clock.advance(1000)
    await alone.sweep("overdue")
    assert {(await incident(alone, agent)).state for agent in agents} == {"open"}
    assert await alone.plane.facts("incident_escalated") == []
    (storm,) = await storms(alone)
    await alone.ask().EndStorm(ingest_pb2.EndStormRequest(name=storm.name, reason="the sink is back"))
    await alone.sweep("overdue")
    asked = await incident(alone, agents[0])
    assert (asked.state, asked.resolution) == ("escalated", "nobody knows a remedy")
    assert {(await incident(alone, agent)).state for agent in agents[1:]} == {"open"}, "they have time to act anew"
    clock.advance(899)
    await alone.sweep("overdue")
    assert (await incident(alone, agents[1])).state == "open"
    clock.advance(2)
    await alone.sweep("overdue")
    assert (await incident(alone, agents[1])).state == "escalated"


async def test_a_storm_ends_by_itself_when_it_has_been_calm_for_long_enough(alone: Alone, clock: ManualClock) -> None:
    agents = await fleet(alone, 5)
    await break_(agents)
    clock.advance(400)
    await alone.sweep("storms")
    assert (await storms(alone))[0].state == "ongoing", "nothing new opens, but everybody is still ill"
    for _ in range(5):
        clock.advance(1)
        await asyncio.gather(*(agent.beats(1, webhook_attempts=20) for agent in agents))
    assert {(await incident(alone, agent)).state for agent in agents} == {"closed"}
    await alone.sweep("storms")
    clock.advance(599)
    await alone.sweep("storms")
    assert (await storms(alone))[0].state == "ongoing"
    clock.advance(2)
    await alone.sweep("storms")
    await alone.sweep("storms")
    (storm,) = await storms(alone, state="over")
    assert "0 of 5 relay plugins" in storm.reason
    (ended,) = await alone.plane.facts("storm_ended")
    assert not ended.storm_ended.by_operator


async def test_a_plugin_whose_attempt_waits_for_the_storm_closes_when_it_is_well_again(
    alone: Alone, clock: ManualClock
) -> None:
    agents = await fleet(alone, 5)
    waiting, going = agents[0], agents[1]
    await break_(agents[:4])
    ids = [(await incident(alone, agent)).name.removeprefix("incidents/") for agent in agents[:2]]
    for agent, number in ((waiting, ids[0]), (going, ids[1])):
        created = events_pb2.AttemptCreated(attempt=f"a-{number}", action=events_pb2.ACTION_PATCH, round=1)
        await react(alone, created, agent, number)
        assert (await incident(alone, agent)).state == "in_progress"
    await break_(agents[4:])
    for agent, number in ((waiting, ids[0]), (going, ids[1])):
        await react(alone, events_pb2.AttemptHeld(attempt=f"a-{number}", gate="STORM"), agent, number)
        assert (await incident(alone, agent)).state == "open"
    await react(alone, events_pb2.ApplyAuthorized(attempt=f"a-{ids[1]}", permit="p"), going, ids[1])
    assert (await incident(alone, going)).state == "in_progress"
    for _ in range(5):
        clock.advance(1)
        await asyncio.gather(*(agent.beats(1, webhook_attempts=20) for agent in (waiting, going)))
    assert (await incident(alone, waiting)).state == "closed"
    assert (await incident(alone, going)).state == "in_progress", "only its outcome ends it"


async def test_silence_in_a_storm_pages_once(servers: Servers, clock: ManualClock) -> None:
    async with Alone.on(servers, clock, INGEST_STORM_LEAST="5") as alone:
        agents = await fleet(alone, 8)
        await asyncio.gather(*(agent.beats(1) for agent in agents))
        for _ in range(24):
            clock.advance(5)
            await alone.sweep("silence")
        assert len(await alone.plane.facts("incident_opened")) == 8
        (storm,) = await storms(alone)
        assert storm.type == "heartbeat_missed"
        assert len(await alone.plane.facts("incident_escalated")) == 5, "those that made the storm"
        await alone.ask().EndStorm(ingest_pb2.EndStormRequest(name=storm.name, reason="the cable is in again"))
        await alone.sweep("overdue")
        assert len(await alone.plane.facts("incident_escalated")) == 8, "afterwards each silent one is a person's"


async def test_ending_a_storm_needs_a_name_a_reason_and_a_storm_that_is_on(alone: Alone) -> None:
    agents = await fleet(alone, 5)
    await break_(agents)
    (storm,) = await storms(alone)
    ask = alone.ask()

    async def refused(name: str, reason: str = "because", request_id: str = "") -> Problem:
        with pytest.raises(Problem) as caught:
            await ask.EndStorm(ingest_pb2.EndStormRequest(name=name, reason=reason, request_id=request_id))
        return caught.value

    assert isinstance(await refused(f"storms/{new_id()}"), NotFound)
    assert (await refused("storm")).reason == "BAD_NAME"
    missing = await refused(storm.name, " ")
    assert (missing.reason, missing.field) == ("REASON_MISSING", "reason")
    request = ingest_pb2.EndStormRequest(name=storm.name, reason="the sink is back", request_id="once")
    ended = (await ask.EndStorm(request)).storm
    assert (ended.state, ended.reason) == ("over", "the sink is back")
    assert (await ask.EndStorm(request)).storm == ended, "a repeat of the request gets the same answer"
    twice = await refused(storm.name, request_id="another")
    assert isinstance(twice, Refused)
    assert twice.reason == "NO_STORM"
    (told,) = await alone.plane.facts("storm_ended")
    assert told.storm_ended.by_operator
    assert told.actor.startswith("operators/")
    with pytest.raises(Invalid, match="ongoing or over"):
        await storms(alone, state="wild")


async def test_after_a_persons_word_only_what_opens_afterwards_makes_the_next_storm(
    alone: Alone, clock: ManualClock
) -> None:
    agents = await fleet(alone, 11)
    await break_(agents[:5])
    (storm,) = await storms(alone)
    await alone.ask().EndStorm(ingest_pb2.EndStormRequest(name=storm.name, reason="a known change"))
    clock.advance(10)
    await break_(agents[5:9])
    assert len(await storms(alone)) == 1
    await break_(agents[9:])
    assert [found.state for found in await storms(alone)] == ["ongoing", "over"]
    first = (await alone.ask().ListStorms(ingest_pb2.ListStormsRequest(page_size=1))).next_page_token
    (older,) = await storms(alone, page_size=1, page_token=first)
    assert older.name == storm.name


def test_the_gate_is_called_as_patcher_calls_it() -> None:
    from services.ingest.reactions import STORM
    from services.patcher.policy.model import HOLDING_GATES

    assert STORM in HOLDING_GATES
