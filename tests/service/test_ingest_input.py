"""Bad input: a clear error naming the field, and nothing changed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from deploy.local.testing import Servers
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from tests.service.ingest_alone import Agent, Alone


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


@pytest.fixture(scope="module")
async def agent(alone: Alone) -> Agent:
    made = await alone.agent()
    await made.beats(1, errors=5, webhook_attempts=10, webhook_failures=1)
    return made


BAD: list[tuple[str, dict[str, Any]]] = [
    ("numbers", {"numbers": {"load": math.nan}}),
    ("numbers", {"numbers": {"load": math.inf}}),
    ("numbers", {"numbers": {f"n{place}": 1.0 for place in range(33)}}),
    ("numbers", {"numbers": {"k" * 65: 1.0}}),
    ("errors", {"errors": -1}),
    ("errors", {"errors": 4}),
    ("webhook_attempts", {"webhook_attempts": 9, "webhook_failures": 1}),
    ("webhook_failures", {"webhook_attempts": 20, "webhook_failures": 21}),
    ("signature_failures", {"signature_failures": -7}),
    ("webhook_fail_rate", {"webhook_fail_rate": math.nan}),
    ("webhook_fail_rate", {"webhook_fail_rate": 1.5}),
    ("errors_last_24h", {"errors_last_24h": -1}),
    ("generation", {"generation": -1}),
    ("health", {"health": 77}),
    ("sequence", {"sequence": 0}),
    ("boot_id", {"boot_id": ""}),
    ("boot_id", {"boot_id": "x" * 65}),
    ("release", {"release": "1.2.0\0"}),
    ("release", {"release": "1" * 200}),
    ("failing_inputs", {"failing_inputs": ["x" * 2049]}),
    ("failing_inputs", {"failing_inputs": ["a", "b", "c", "d"]}),
    ("environment", {"environment": {"cms": "x" * 300}}),
    ("time", {"time": {"seconds": 1 << 60}}),
    ("time", {"time": {"seconds": -(1 << 60)}}),
    ("time", {"time": {"seconds": 253_402_300_799}}),
]


@pytest.mark.parametrize(("field", "values"), BAD)
async def test_a_bad_beat_is_rejected_and_changes_nothing(
    alone: Alone, agent: Agent, field: str, values: dict[str, Any]
) -> None:
    before = await alone.plugin(agent)
    agent.received.clear()
    good = {"boot_id": agent.boot, "sequence": agent.sequence + 1, "errors": 5, "webhook_attempts": 10}
    good |= {"webhook_failures": 1, "release": "1.2.0", "health": pb.HEALTH_HEALTHY}
    await agent.send(pb.Beat(**(good | values)))
    rejection = await agent.receives("rejection")
    assert rejection.field == field
    assert rejection.message and rejection.reason
    after = await alone.plugin(agent)
    assert (after.beats, after.errors_in_window) == (before.beats, before.errors_in_window)


async def test_the_session_goes_on_after_a_rejection(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.send(pb.Beat(boot_id=agent.boot, sequence=1, errors=-1))
    await agent.receives("rejection")
    await agent.beats(1)


async def test_what_postgresql_cannot_hold_does_not_stop_the_others(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1, webhook_attempts=20, webhook_failures=20, failing_inputs=["a\0b"])
    (incident,) = await alone.incidents(agent)
    assert list(incident.evidence.failing_inputs) == ["a\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize(
    ("credential", "code"),
    [
        ("", grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer x", grpc.StatusCode.UNAUTHENTICATED),
        ("Plugin 0192f0c1-7d3e-7b8a-9c55-2f1e6a7b8c9d:secret", grpc.StatusCode.UNAUTHENTICATED),
        ("Plugin shop-1:secret", grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_no_call_works_without_a_valid_credential(alone: Alone, credential: str, code: grpc.StatusCode) -> None:
    metadata = (("authorization", credential),) if credential else ()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.gateway.Heartbeat(pb.HeartbeatRequest(beat=pb.Beat(boot_id="b", sequence=1)), metadata=metadata)
    assert caught.value.code() == code
    # Refused before a word of it is read; a write into a refused call is INTERNAL when gRPC knows no better yet.
    assert await alone.gateway.Connect(metadata=metadata).code() == code


async def test_no_agent_speaks_for_another(alone: Alone) -> None:
    mine, other = await alone.enrolled(), await alone.enrolled()
    forged = Agent(alone.gateway, other.plugin, mine.secret)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.gateway.Heartbeat(pb.HeartbeatRequest(beat=other.beat()), metadata=forged.metadata)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (await alone.plugin(other)).beats == 0


async def test_a_batch_says_which_entries_it_refused_and_stores_the_rest(alone: Alone) -> None:
    agents = [await alone.enrolled() for _ in range(3)]
    entries = [pb.BatchBeat(plugin=one.plugin, secret=one.secret, beat=one.beat(errors=2)) for one in agents]
    entries[1].secret = "wrong"
    entries.append(pb.BatchBeat(plugin=new_id(), secret="s", beat=agents[0].beat()))
    entries.append(pb.BatchBeat(plugin=agents[2].plugin, secret=agents[2].secret, beat=agents[2].beat(errors=-9)))
    answer = await alone.gateway.ReportBatch(pb.ReportBatchRequest(beats=entries))
    assert answer.accepted == 2
    assert [(one.index, one.reason) for one in answer.rejections] == [
        (1, "CREDENTIAL_INVALID"),
        (3, "CREDENTIAL_INVALID"),
        (4, "BEAT_INVALID"),
    ]
    assert [(await alone.plugin(one)).beats for one in agents] == [1, 0, 1]


async def test_a_batch_beyond_its_bound_is_refused(alone: Alone) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.gateway.ReportBatch(pb.ReportBatchRequest(beats=[pb.BatchBeat()] * 1001))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_oversize_message_ends_its_stream_alone(alone: Alone, agent: Agent) -> None:
    big = await alone.agent()
    await big.call.write(pb.ConnectRequest(beat=pb.Beat(release="x" * 2_000_000)))
    assert await big.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await agent.beats(1)
