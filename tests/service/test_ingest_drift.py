"""config_drift: a configuration that nobody brought is found by its digest; what is on its way or on trial is none."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import Servers, until
from libs.common.bus import fact
from libs.common.clock import ManualClock
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import events_pb2, ingest_pb2
from tests.service.ingest_alone import Agent, Alone

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GOOD, NEXT, WRONG = (hashlib.sha256(text).hexdigest() for text in (b"good", b"next", b"wrong"))


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock, INGEST_SILENCE_SECONDS="86000") as made:
        yield made


async def react(alone: Alone, message: Any, plugin: str = "", incident: str = "") -> None:
    """Brings a fact of patcher to its reaction twice."""
    event = fact("patcher", message, reason="because", plugin=plugin, incident=incident)
    consumer = next(part for part in alone.plane.services["ingest"].parts if hasattr(part, "reactions"))
    for _ in range(2):
        await consumer.handle(event, TRACE)


async def publish(alone: Alone, digest: str, plugin: str = "") -> None:
    told = events_pb2.ConfigurationPublished(package="relay", plugin=plugin, version=new_id(), digest=digest)
    await react(alone, told, plugin)


async def expected(alone: Alone, agent: Agent) -> str:
    return (await alone.plugin(agent)).expected_config_digest


async def settled(alone: Alone, agent: Agent, digest: str) -> Agent:
    """A plugin that is known to have this configuration."""
    await agent.beats(2, config_digest=digest)
    await publish(alone, digest, agent.plugin)
    assert await expected(alone, agent) == digest
    return agent


async def drifts(alone: Alone, agent: Agent) -> list[ingest_pb2.Incident]:
    return [one for one in await alone.incidents(agent) if one.type == "config_drift"]


async def beat(alone: Alone, agent: Agent, count: int = 1, **values: Any) -> None:
    """Beats a second apart."""
    for _ in range(count):
        alone.ctx.clock.advance(1)
        await agent.beats(1, **values)


async def say(agent: Agent, command: pb.Command, outcome: Any) -> None:
    """The agent's word, as often as it takes until it is acknowledged, and once more."""
    told = pb.CommandResult(
        command=command.id, attempt="a-1", generation=command.generation, fence=command.fence, outcome=outcome
    )
    for _ in range(2):
        await agent.send(told)
        await agent.receives("result_ack", lambda ack: (ack.command, ack.outcome) == (command.id, outcome))


async def begin(alone: Alone, agent: Agent, digest: str) -> pb.Command:
    """A configuration that is on trial."""
    values = {"digest": digest, "release": "1.2.0", "envelope": b"{}", "config": b"{}"}
    command = await alone.issue(agent, pb.COMMAND_KIND_CONFIG_UPDATE, **values)
    await say(agent, command, pb.COMMAND_OUTCOME_APPLIED)
    return command


async def bring(alone: Alone, agent: Agent, digest: str) -> pb.Command:
    """A configuration that is kept."""
    command = await begin(alone, agent, digest)
    commit = await alone.issue(agent, pb.COMMAND_KIND_COMMIT, generation=command.generation)
    await say(agent, commit, pb.COMMAND_OUTCOME_COMMITTED)
    return command


async def found(alone: Alone, agent: Agent, digest: str) -> ingest_pb2.Incident:
    """The drift that beats with this digest show, as soon as nothing may be under way any more."""

    async def look() -> ingest_pb2.Incident | None:
        await beat(alone, agent, config_digest=digest)
        return next(iter(await drifts(alone, agent)), None)

    return await until(look, 60, what="the drift is seen")  # type: ignore[no-any-return]


async def test_a_configuration_that_nobody_brought_opens_one_incident_and_the_right_one_closes_it(alone: Alone) -> None:
    agent = await settled(alone, await alone.agent(), GOOD)
    await beat(alone, agent, 3, config_digest=WRONG)
    (incident,) = await drifts(alone, agent)
    assert (incident.severity, incident.state) == (events_pb2.SEVERITY_MEDIUM, "open")
    assert incident.evidence.config_digest == WRONG
    assert f"{WRONG[:12]}, it should be {GOOD[:12]}" in incident.evidence.summary
    assert len(await alone.plane.facts("incident_opened", plugin=agent.plugin)) == 1
    await beat(alone, agent, 4, config_digest=GOOD)
    assert [one.state for one in await drifts(alone, agent)] == ["open"]
    await beat(alone, agent, config_digest=GOOD)
    assert [one.state for one in await drifts(alone, agent)] == ["closed"]


async def test_what_is_published_is_expected_of_those_who_have_it_before_or_after_and_of_nobody_else(
    alone: Alone,
) -> None:
    digest = hashlib.sha256(new_id().encode()).hexdigest()
    before, other, after = [await alone.agent() for _ in range(3)]
    await beat(alone, before, config_digest=digest)
    await beat(alone, other, config_digest=WRONG)
    await publish(alone, digest)
    await beat(alone, after, config_digest=digest)
    assert [await expected(alone, agent) for agent in (before, other, after)] == [digest, "", digest]
    own = hashlib.sha256(new_id().encode()).hexdigest()
    await publish(alone, own, before.plugin)
    stranger = await alone.agent()
    await beat(alone, stranger, config_digest=own)
    assert await expected(alone, stranger) == "", "it was made for another plugin"
    await beat(alone, other, 3, config_digest=NEXT)
    assert await drifts(alone, other) == [], "nothing is expected of it"


async def test_what_is_on_trial_or_was_taken_back_is_no_drift_and_what_was_kept_is_expected(alone: Alone) -> None:
    agent = await settled(alone, await alone.agent(), GOOD)
    command = await begin(alone, agent, NEXT)
    await beat(alone, agent, 3, config_digest=NEXT, generation=command.generation)
    assert await expected(alone, agent) == GOOD
    await say(agent, command, pb.COMMAND_OUTCOME_REVERTED)
    await beat(alone, agent, 8, config_digest=GOOD)
    assert (await expected(alone, agent), await drifts(alone, agent)) == (GOOD, [])
    kept = await bring(alone, agent, NEXT)
    await beat(alone, agent, 8, config_digest=NEXT, generation=kept.generation)
    assert (await expected(alone, agent), await drifts(alone, agent)) == (NEXT, [])
    assert "should be " + NEXT[:12] in (await found(alone, agent, GOOD)).evidence.summary


async def test_a_person_who_takes_a_kept_configuration_back_is_not_worked_against(alone: Alone) -> None:
    agent = await settled(alone, await alone.agent(), GOOD)
    await bring(alone, agent, NEXT)
    second = await bring(alone, agent, hashlib.sha256(b"third").hexdigest())
    back = await alone.issue(agent, pb.COMMAND_KIND_ROLLBACK, generation=second.generation)
    await beat(alone, agent, config_digest=NEXT)
    await say(agent, back, pb.COMMAND_OUTCOME_REVERTED)
    await beat(alone, agent, 8, config_digest=NEXT)
    assert (await expected(alone, agent), await drifts(alone, agent)) == (NEXT, [])


async def test_another_incident_that_is_mended_by_a_configuration_needs_no_second_one(alone: Alone) -> None:
    agent = await settled(alone, await alone.agent(), GOOD)
    await beat(alone, agent, config_digest=GOOD, webhook_attempts=20, webhook_failures=12)
    (incident,) = await alone.incidents(agent)
    told = events_pb2.AttemptCreated(attempt="a-1", action=events_pb2.ACTION_CONFIG_FIX, round=1)
    await react(alone, told, agent.plugin, incident.name.removeprefix("incidents/"))
    await beat(alone, agent, 3, config_digest=WRONG)
    assert await drifts(alone, agent) == []
    over = events_pb2.AttemptSucceeded(attempt="a-1", action=events_pb2.ACTION_CONFIG_FIX, round=1)
    await react(alone, over, agent.plugin, incident.name.removeprefix("incidents/"))
    await found(alone, agent, WRONG)
