"""Plugins that leave in order and agents that their hosts hinder: shown at once, missed in time, over with one beat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from deploy.local.testing import ManualClock, Servers, until
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from tests.service.ingest_alone import Agent, Alone

LOW, MEDIUM, HIGH = 1, 2, 3
FULL = pb.AgentCondition(type="disk_full", subject="/srv/agent", detail="No space left on device")
LISTENS_SECONDS = 600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock, INGEST_STORM_LEAST="3") as made:
        yield made


async def listening(alone: Alone, clock: ManualClock, seconds: float) -> None:
    """Lets time pass while ingest goes on noting that it hears."""
    for _ in range(round(seconds / 5)):
        clock.advance(5)
        await alone.sweep("silence")


async def says_goodbye(agent: Agent, *, times: int = 1, **values: object) -> None:
    """The plugin is stopped in order; a goodbye that comes again changes nothing."""
    for _ in range(times):
        await agent.send(pb.Goodbye(reason="shutdown", **values))  # type: ignore[arg-type]
    await until(lambda: agent.ended is not None and agent.ended.done())


async def stopped(alone: Alone, **values: object) -> Agent:
    """A plugin that ran, and was stopped in order."""
    agent = await alone.agent()
    await agent.beats(1)
    await says_goodbye(agent, **values)
    return agent


async def states(alone: Alone, agent: Agent) -> list[tuple[str, str, int]]:
    return [(one.type, one.state, one.severity) for one in await alone.incidents(agent)]


async def fleet(alone: Alone) -> tuple[int, int]:
    """How many plugins there are, and how many of them are away."""
    answer = await alone.ask().GetFleet(ingest_pb2.GetFleetRequest(breakdown=True))
    return sum(group.plugins for group in answer.groups), sum(group.away for group in answer.groups)


async def test_a_plugin_that_was_stopped_is_away_at_once_and_missed_after_ten_minutes(
    alone: Alone, clock: ManualClock
) -> None:
    assert alone.ctx.settings.away == 600
    lively = await alone.agent()
    await lively.beats(1)
    agent = await stopped(alone, times=2)
    assert (await alone.plugin(agent)).away and not (await alone.plugin(lively)).away
    assert await fleet(alone) == (2, 1)
    await listening(alone, clock, 600)
    assert await states(alone, agent) == []
    await listening(alone, clock, 5)
    assert await states(alone, agent) == [("plugin_away", "escalated", LOW)]
    (incident,) = await alone.incidents(agent)
    assert "605 s ago" in incident.evidence.summary
    assert incident.evidence.figures["away_seconds"] == 605
    told = [event.WhichOneof("fact") for event in await alone.plane.facts(plugin=agent.plugin)]
    assert told[-2:] == ["incident_opened", "incident_escalated"]
    await listening(alone, clock, 200)
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1, "it is told once"
    assert [type_ for type_, _, _ in await states(alone, lively)] == ["heartbeat_missed"]


async def test_one_beat_of_who_is_back_ends_it(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone)
    await listening(alone, clock, 605)
    await agent.connect()
    assert not (await alone.plugin(agent)).away
    await agent.beats(1)
    assert await states(alone, agent) == [("plugin_away", "closed", LOW)]
    (incident,) = await alone.incidents(agent)
    assert incident.resolution == "the plugin is back"
    assert await fleet(alone) == (1, 0)


async def test_who_comes_back_in_time_is_never_missed(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone)
    await listening(alone, clock, 595)
    await agent.connect()
    await agent.beats(1)
    await listening(alone, clock, 80)
    assert await states(alone, agent) == []


async def test_who_is_stopped_again_and_again_is_one_incident(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone)
    await listening(alone, clock, 605)
    await agent.connect()
    await agent.beats(1)
    await says_goodbye(agent)
    await listening(alone, clock, 605)
    (incident,) = await alone.incidents(agent)
    assert (incident.type, incident.state, incident.reopened) == ("plugin_away", "escalated", 1)
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1


async def test_who_says_how_long_is_missed_after_it_as_one_that_is_silent(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone, back_within_duration=Duration(seconds=1200))
    plugin = await alone.plugin(agent)
    assert plugin.away and plugin.back_by_time.seconds == int(clock.now().timestamp()) + 1200
    await listening(alone, clock, 1285)
    assert await states(alone, agent) == []
    await listening(alone, clock, 10)
    assert [one[:2] for one in await states(alone, agent)] == [("heartbeat_missed", "escalated")]


@pytest.mark.parametrize("how", ["duration", "time"])
async def test_nobody_is_excused_for_longer_than_a_week(alone: Alone, clock: ManualClock, how: str) -> None:
    far = Timestamp()
    far.FromDatetime(clock.now() + timedelta(days=365))
    named = {"back_within_duration": Duration(seconds=31_536_000)} if how == "duration" else {"back_by_time": far}
    agent = await stopped(alone, **named)
    week = 7 * 86_400
    assert (await alone.plugin(agent)).back_by_time.seconds == int(clock.now().timestamp()) + week
    clock.advance(week - 60)
    await listening(alone, clock, 145)
    assert await states(alone, agent) == []
    await listening(alone, clock, 10)
    assert [one[:2] for one in await states(alone, agent)] == [("heartbeat_missed", "escalated")]


async def test_a_time_that_an_agent_names_is_meant_by_its_own_clock(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    theirs = Timestamp(seconds=1000)
    await agent.beats(1, time=theirs)
    await says_goodbye(agent, back_by_time=Timestamp(seconds=1300))
    by = (await alone.plugin(agent)).back_by_time.seconds - clock.now().timestamp()
    assert abs(by - 300) <= 1, "an agent in 1970 is away for five minutes, as it said"
    await listening(alone, clock, 300)
    assert await states(alone, agent) == []


async def test_a_plane_that_was_down_misses_nobody_who_left(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone)
    await listening(alone, clock, 20)
    clock.advance(3600)
    await listening(alone, clock, LISTENS_SECONDS)
    assert await states(alone, agent) == []
    await listening(alone, clock, 15)
    assert await states(alone, agent) == [("plugin_away", "escalated", LOW)]


async def test_many_that_left_and_cannot_be_missed_yet_hide_nobody_who_is_silent(
    alone: Alone, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.ingest.gateway import silence

    monkeypatch.setattr(silence, "MOST", 2)
    left = [await stopped(alone) for _ in range(3)]
    silent = await alone.agent()
    await silent.beats(1)
    await listening(alone, clock, 100)
    assert [type_ for type_, _, _ in await states(alone, silent)] == ["heartbeat_missed"]
    assert [await states(alone, agent) for agent in left] == [[], [], []]


async def test_many_away_at_once_are_one_storm(alone: Alone, clock: ManualClock) -> None:
    agents = [await stopped(alone) for _ in range(4)]
    await listening(alone, clock, 605)
    (storm,) = (await alone.ask().ListStorms(ingest_pb2.ListStormsRequest())).storms
    assert (storm.type, storm.state, storm.fleet) == ("plugin_away", "ongoing", 4)
    assert len(await alone.plane.facts("storm_started")) == 1
    told = [one.storm for agent in agents for one in await alone.incidents(agent)]
    assert told.count(storm.name.removeprefix("storms/")) == 4


async def test_a_clock_that_is_set_back_hides_neither_who_died_nor_who_left(alone: Alone, clock: ManualClock) -> None:
    silent = await alone.agent()
    await silent.beats(1)
    agent = await stopped(alone)
    clock.set_back(86_400)
    await listening(alone, clock, 100)
    assert [one[:2] for one in await states(alone, silent)] == [("heartbeat_missed", "escalated")]
    assert await states(alone, agent) == []
    await listening(alone, clock, 520)
    assert await states(alone, agent) == [("plugin_away", "escalated", LOW)]


async def test_a_plugin_that_leaves_for_good_is_not_away(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    await agent.send(pb.Goodbye(reason="uninstalled"))
    await until(lambda: agent.ended is not None and agent.ended.done())
    await listening(alone, clock, 700)
    assert await states(alone, agent) == []
    assert await fleet(alone) == (0, 0)


async def test_who_is_away_for_too_long_may_be_retired_and_that_ends_it(alone: Alone, clock: ManualClock) -> None:
    agent = await stopped(alone)
    await listening(alone, clock, 605)
    await alone.ask().RetirePlugin(ingest_pb2.RetirePluginRequest(name=f"plugins/{agent.plugin}"))
    assert await states(alone, agent) == [("plugin_away", "closed", LOW)]
    await listening(alone, clock, 700)
    assert await states(alone, agent) == [("plugin_away", "closed", LOW)]


async def test_a_hindered_agent_is_an_incident_that_names_place_and_remedy(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    await agent.beats(3, conditions=[FULL])
    (incident,) = await alone.incidents(agent)
    assert (incident.type, incident.state, incident.severity) == ("agent_degraded", "open", MEDIUM)
    assert incident.evidence.summary == (
        "disk_full at /srv/agent (No space left on device): free space in /srv/agent or enlarge its disk"
    )
    plugin = await alone.plugin(agent)
    assert (plugin.health, plugin.beats) == (pb.HEALTH_HEALTHY, 4), "the plugin is well, and its beats count"
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1


async def test_one_beat_without_a_condition_ends_it_and_a_repeated_beat_changes_nothing(
    alone: Alone, clock: ManualClock
) -> None:
    agent = await alone.agent()
    ill = agent.beat(conditions=[FULL])
    for _ in range(2):
        await agent.send(ill)
    await agent.receives("ack", lambda ack: ack.sequence >= ill.sequence)
    clock.advance(1)
    await agent.beats(1)
    (incident,) = await alone.incidents(agent)
    assert (incident.state, incident.resolution) == ("closed", "nothing hinders the agent any more")
    await agent.send(ill)
    clock.advance(1)
    await agent.beats(1)
    assert [one.state for one in await alone.incidents(agent)] == ["closed"], "what was is not what is"


async def test_a_disk_that_fails_is_worse_than_one_that_is_full(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    await agent.beats(1, conditions=[FULL])
    clock.advance(1)
    await agent.beats(1, conditions=[FULL, pb.AgentCondition(type="disk_failing", subject="/srv")])
    (incident,) = await alone.incidents(agent)
    assert incident.severity == HIGH
    assert "look at the disk under /srv, it fails" in incident.evidence.summary


async def test_an_incident_names_what_hinders_the_agent_now_and_not_what_did_at_first(
    alone: Alone, clock: ManualClock
) -> None:
    agent = await alone.agent()
    await agent.beats(2, conditions=[FULL])
    clock.advance(1)
    await agent.beats(2, conditions=[pb.AgentCondition(type="permission_denied", subject="/srv/agent")])
    (incident,) = await alone.incidents(agent)
    assert incident.evidence.summary == (
        "permission_denied at /srv/agent: give the agent's user its rights to /srv/agent back"
    )
    assert (incident.severity, incident.reopened) == (MEDIUM, 0)
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1


async def test_an_agent_in_trouble_is_heard_whatever_its_conditions_say(alone: Alone) -> None:
    agent = await alone.agent()
    odd = [pb.AgentCondition(type="", subject="/srv/\0\x1b[31m" + "x" * 5000, detail="a\nb")] * 40
    await agent.beats(1, conditions=odd)
    (incident,) = await alone.incidents(agent)
    assert incident.evidence.summary.startswith("local_fault at /srv/")
    assert incident.evidence.summary.isprintable() and len(incident.evidence.summary) < 20_000
    assert not [message for message in agent.received if message.WhichOneof("message") == "rejection"]
