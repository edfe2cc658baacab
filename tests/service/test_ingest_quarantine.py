"""Two agents with one identity are shut out, late and repeated beats are none, and a person lets a plugin in again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from deploy.local.testing import ManualClock, Servers, until
from libs.common.errors import NotFound, Refused
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from tests.service.ingest_alone import Agent, Alone

DELAY = 61.0


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock) as made:
        yield made


async def heartbeat(agent: Agent, boot: str, sequence: int, **values: Any) -> str:
    """A beat without a stream; the name of the code it was answered with."""
    beat = pb.Beat(boot_id=boot, sequence=sequence, release="1.2.0", health=pb.HEALTH_HEALTHY, **values)
    try:
        await agent.stub.Heartbeat(pb.HeartbeatRequest(beat=beat), metadata=agent.metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def alternate(agent: Agent, clock: ManualClock, times: int = 5) -> list[str]:
    """Two boots that both live."""
    boots, answers = (new_id(), new_id()), []
    for sequence in range(1, times + 1):
        answers.append(await heartbeat(agent, boots[sequence % 2], sequence))
        clock.advance(DELAY)
    return answers


async def let_in(alone: Alone, agent: Agent, **values: str) -> ingest_pb2.Plugin:
    fields = {"name": f"plugins/{agent.plugin}", "reason": "the copy is gone", "request_id": new_id()} | values
    return (await alone.ask().ReleaseFromQuarantine(ingest_pb2.ReleaseFromQuarantineRequest(**fields))).plugin


async def test_two_living_agents_with_one_identity_are_both_shut_out(alone: Alone, clock: ManualClock) -> None:
    agent, clone = await alone.agent(), new_id()
    for sequence in range(1, 5):
        clock.advance(DELAY)
        await agent.send(agent.beat())

        async def judged(sequence: int = sequence) -> bool:
            seen = await alone.plugin(agent)
            return seen.state == "quarantined" or seen.beats == 2 * sequence - 1

        await until(judged, what="the beat is judged")
        if (await alone.plugin(agent)).state == "quarantined":
            break
        clock.advance(DELAY)
        assert await heartbeat(agent, clone, sequence) == "OK"
    await agent.receives("disconnect")
    assert (await alone.plugin(agent)).state == "quarantined"
    (told,) = await alone.plane.facts("plugin_quarantined", plugin=agent.plugin)
    assert set(told.plugin_quarantined.boot_ids) == {agent.boot, clone}
    assert await heartbeat(agent, agent.boot, 99) == "PERMISSION_DENIED"
    assert await heartbeat(agent, clone, 99) == "PERMISSION_DENIED"


async def test_a_person_lets_a_quarantined_plugin_in_again(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.enrolled("pos-3")
    assert (await alternate(agent, clock))[-1] == "PERMISSION_DENIED"
    await alone.plane.wait_for_fact("plugin_quarantined", plugin=agent.plugin)
    request = new_id()
    first = await let_in(alone, agent, request_id=request)
    assert first.state == "active"
    assert await let_in(alone, agent, request_id=request) == first, "a repeat changes nothing"
    (told,) = await alone.plane.facts("quarantine_released", plugin=agent.plugin)
    assert (told.reason, told.actor) == ("the copy is gone", "operators/local")
    assert await heartbeat(agent, new_id(), 1) == "OK"
    assert (await alternate(agent, clock))[-1] == "PERMISSION_DENIED", "two that still live are shut out again"
    await alone.plane.wait_for_fact("plugin_quarantined", times=2, plugin=agent.plugin)


async def test_only_a_plugin_that_is_shut_out_can_be_let_in(alone: Alone) -> None:
    agent = await alone.enrolled("pos-4")
    assert (await let_in(alone, agent)).state == "active"
    assert not await alone.plane.facts("quarantine_released", plugin=agent.plugin)
    retire = ingest_pb2.RetirePluginRequest(name=f"plugins/{agent.plugin}", reason="sold", request_id=new_id())
    await alone.ask().RetirePlugin(retire)
    with pytest.raises(Refused) as refused:
        await let_in(alone, agent)
    assert refused.value.reason == "PLUGIN_RETIRED"
    with pytest.raises(NotFound):
        await let_in(alone, agent, name=f"plugins/{new_id()}")


async def test_a_delayed_or_repeated_beat_of_the_boot_before_shuts_nobody_out(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.enrolled("pos-5")
    old, new = new_id(), new_id()
    for boot, sequence in ((old, 1), (old, 2), (new, 1), (old, 2), (old, 3), (new, 2), (old, 1), (new, 2)) * 2:
        assert await heartbeat(agent, boot, sequence) == "OK"
    clock.advance(DELAY)
    for sequence in range(3, 9):
        assert await heartbeat(agent, new, sequence) == "OK"
        assert await heartbeat(agent, old, 3) == "OK", "a repeat is a repeat, however late"
        clock.advance(DELAY)
    assert (await alone.plugin(agent)).state == "active"


async def test_plain_http_beside_a_stream_shuts_nobody_out(alone: Alone, clock: ManualClock) -> None:
    agent = await alone.agent()
    for _ in range(5):
        await agent.beats(1)
        clock.advance(DELAY)
        bare = pb.Beat(release="1.2.0", health=pb.HEALTH_HEALTHY, webhook_fail_rate=0.0)
        await agent.stub.Heartbeat(pb.HeartbeatRequest(beat=bare), metadata=agent.metadata)
        clock.advance(DELAY)
    known = await alone.plugin(agent)
    assert (known.state, known.beats) == ("active", 10), "each of them counts"


async def test_a_hello_alone_shuts_nobody_out(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1)
    for boot in (new_id(), agent.boot) * 4:
        call = agent.stub.Connect(metadata=agent.metadata)
        await call.write(pb.ConnectRequest(hello=pb.Hello(boot_id=boot)))
        assert (await call.read()).WhichOneof("message") == "settings"
        call.cancel()
    assert (await alone.plugin(agent)).state == "active"
