"""Silence and deadlines, on a clock the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from deploy.local.testing import ManualClock, Servers, until
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from tests.service.ingest_alone import Agent, Alone


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock) as made:
        yield made


async def listening(alone: Alone, clock: ManualClock, seconds: float) -> None:
    """Lets time pass while ingest goes on noting that it hears."""
    for _ in range(round(seconds / 5)):
        clock.advance(5)
        await alone.sweep("silence")


async def states(alone: Alone, agent: Agent) -> list[tuple[str, str]]:
    return [(incident.type, incident.state) for incident in await alone.incidents(agent)]


async def test_a_silent_plugin_goes_to_a_person_within_two_minutes(alone: Alone, clock: ManualClock) -> None:
    silent, lively, away = await alone.agent(), await alone.agent(), await alone.agent()
    for agent in (silent, lively, away):
        await agent.beats(1)
    await away.send(pb.Goodbye(reason="shutdown"))
    await until(lambda: away.ended is not None and away.ended.done())
    await listening(alone, clock, 80)
    await lively.beats(1)
    await listening(alone, clock, 30)
    assert await states(alone, silent) == [("heartbeat_missed", "escalated")]
    assert await states(alone, lively) == await states(alone, away) == []
    (incident,) = await alone.incidents(silent)
    assert (incident.severity, len(incident.trace_id)) == (4, 32)
    told = [event.WhichOneof("fact") for event in await alone.plane.facts(plugin=silent.plugin)]
    assert told[-2:] == ["incident_opened", "incident_escalated"]


async def test_a_silence_is_told_once_and_ends_with_the_next_beat(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    await listening(alone, clock, 200)
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1
    await agent.beats(1)
    assert await states(alone, agent) == [("heartbeat_missed", "closed")]
    await listening(alone, clock, 100)
    (again,) = await alone.incidents(agent)
    assert (again.type, again.state, again.reopened) == ("heartbeat_missed", "escalated", 1)
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1


async def test_a_plane_that_was_down_blames_nobody(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    await listening(alone, clock, 20)
    clock.advance(3600)
    await listening(alone, clock, 85)
    assert await states(alone, agent) == []
    await listening(alone, clock, 15)
    assert await states(alone, agent) == [("heartbeat_missed", "escalated")]


async def test_who_named_a_time_is_blamed_after_it(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    back = Timestamp()
    back.FromDatetime(clock.now() + timedelta(seconds=200))
    await agent.send(pb.Goodbye(reason="maintenance", back_by_time=back))
    await until(lambda: agent.ended is not None and agent.ended.done())
    await listening(alone, clock, 280)
    assert await states(alone, agent) == []
    await listening(alone, clock, 20)
    assert await states(alone, agent) == [("heartbeat_missed", "escalated")]


async def test_what_nobody_moves_is_handed_to_a_person(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1, webhook_attempts=20, webhook_failures=20)
    clock.advance(899)
    assert await alone.sweep("overdue") == 0
    clock.advance(2)
    await until(lambda: _escalated(alone, agent))
    (told,) = await alone.plane.facts("incident_escalated", plugin=agent.plugin)
    assert told.incident == (await alone.incidents(agent))[0].name.removeprefix("incidents/")


async def _escalated(alone: Alone, agent: Agent) -> bool:
    await alone.sweep("overdue")
    return await states(alone, agent) == [("webhook_fail_rate", "escalated")]


async def test_a_command_without_a_word_expires(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    issued = await alone.issue(agent)
    clock.advance(301)

    async def expired() -> bool:
        await alone.sweep("expired")
        request = ingest_pb2.GetCommandRequest(name=f"commands/{issued.id}")
        return (await alone.ask().GetCommand(request)).command.state == "expired"

    await until(expired)
    (told,) = await alone.plane.facts("command_finished", plugin=agent.plugin)
    assert told.command_finished.outcome == "expired"
    # The agent's receipt still counts.
    word = pb.CommandResult(command=issued.id, generation=1, outcome=pb.COMMAND_OUTCOME_APPLIED)
    await agent.send(word)
    await agent.receives("result_ack")
    assert len(await alone.plane.facts("command_finished", plugin=agent.plugin)) == 2
