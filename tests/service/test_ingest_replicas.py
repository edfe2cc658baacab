"""Two replicas of ingest on one database, and a database that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from tests.service.ingest_alone import Agent, Alone


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


@pytest.fixture(scope="module")
async def second(alone: Alone) -> AsyncIterator[Plane]:
    backing: BackingServices = alone.plane.backing
    plane = Plane(backing, environ=alone.plane.environ, names=("ingest",), key=alone.plane.key)
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def there(second: Plane) -> AsyncIterator[agent_pb2_grpc.AgentGatewayAsyncStub]:
    async with grpc.aio.insecure_channel(second.addresses["ingest"]) as channel:
        yield agent_pb2_grpc.AgentGatewayStub(channel)  # type: ignore[misc]


async def test_an_agent_may_move_between_replicas(alone: Alone, there: agent_pb2_grpc.AgentGatewayAsyncStub) -> None:
    agent = await alone.agent()
    await agent.beats(2, webhook_attempts=10)
    for stub in (there, alone.gateway, there):
        await agent.leave()
        agent.stub = stub
        await agent.connect()
        await agent.beats(2, webhook_attempts=10)
    assert (await alone.plugin(agent)).beats == 8


async def test_a_session_on_one_replica_loses_to_a_newer_one_on_the_other(
    alone: Alone, there: agent_pb2_grpc.AgentGatewayAsyncStub
) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    newer = Agent(there, agent.plugin, agent.secret, boot=agent.boot, sequence=1)
    await newer.connect()
    await newer.beats(1, errors=1)
    await agent.send(agent.beat())
    await agent.receives("disconnect")
    await newer.beats(1, errors=1)
    assert (await alone.plugin(agent)).beats == 3
    await newer.leave()


async def test_a_command_issued_at_one_replica_is_written_by_the_other(
    alone: Alone, there: agent_pb2_grpc.AgentGatewayAsyncStub
) -> None:
    agent = await alone.enrolled()
    agent.stub = there
    await agent.connect()
    issued = await alone.issue(agent)
    assert (await agent.receives("command", timeout=5)).id == issued.id


async def test_bad_beats_at_both_replicas_open_one_incident(
    alone: Alone, there: agent_pb2_grpc.AgentGatewayAsyncStub
) -> None:
    agents = [await alone.enrolled() for _ in range(20)]

    async def report(stub: agent_pb2_grpc.AgentGatewayAsyncStub, agent: Agent, sequence: int) -> None:
        beat = pb.Beat(boot_id="b", sequence=sequence, webhook_attempts=20 * sequence, webhook_failures=20 * sequence)
        entry = pb.BatchBeat(plugin=agent.plugin, secret=agent.secret, beat=beat)
        answer = await stub.ReportBatch(pb.ReportBatchRequest(beats=[entry]))
        # A beat that overtook its predecessor leaves that one behind it: the same counts, acknowledged.
        assert not answer.rejections

    for sequence in (1, 2):
        await asyncio.gather(*(report(stub, agent, sequence) for agent in agents for stub in (alone.gateway, there)))
    for agent in agents:
        assert len(await alone.incidents(agent)) == 1
        assert (await alone.plugin(agent)).beats == 2


async def test_beats_wait_for_a_database_that_is_away(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    owner = alone.plane._owner
    assert owner is not None
    for number in range(20):
        await agent.send(agent.beat(errors=1))
        if number % 5 == 0:
            async with owner.reading() as tx:
                await tx.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'prunella_ingest'")
    await until(lambda: any(m.HasField("ack") and m.ack.sequence == 21 for m in agent.received) or _gone(agent), 15)
    if _gone(agent):
        await agent.connect()
    await agent.beats(1)
    plugin = await alone.plugin(agent)
    assert plugin.errors_in_window == 20


def _gone(agent: Agent) -> bool:
    return agent.ended is not None and agent.ended.done()
