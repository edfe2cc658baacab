"""A server tells its health truthfully, drains, and says why it cannot listen."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.common.errors import (
    Refused,
    Unavailable,
)
from libs.common.rpc import Server
from prunella.v1 import ingest_pb2
from tests.ignored_cancellation import IgnoresFirstCancellation
from tests.service.rpc_plane import KEY, NOT_SERVING, SERVING, Plane, eventually, running


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as started:
        yield started


async def test_health_follows_the_deep_check_and_the_drain() -> None:
    plane = Plane()
    plane.sick = Unavailable("PostgreSQL does not answer", reason="DATABASE_AWAY")
    await plane.server.start()
    try:
        await eventually(lambda: plane.server.why == "PostgreSQL does not answer")
        assert await plane.health() == NOT_SERVING
        assert await plane.health("prunella.v1.IngestService") == NOT_SERVING

        plane.sick = None
        await eventually(lambda: plane.server.serving)
        assert await plane.health("prunella.v1.IngestService") == SERVING

        plane.sick = OSError("connection refused")
        await eventually(lambda: not plane.server.serving)
        assert await plane.health() == NOT_SERVING
        assert "connection refused" in plane.server.why

        plane.sick = None
        await eventually(lambda: plane.server.serving)
        await plane.server.drain()
        assert await plane.health() == NOT_SERVING
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    finally:
        for made in plane.channels:
            await made.close()
        await plane.server.stop(grace=0.2)
    assert not plane.server.serving


async def test_a_check_that_did_not_hear_that_it_should_stop_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.cancellation.REPEAT_SECONDS", 0.01)
    check = IgnoresFirstCancellation()
    server = Server("decider", "127.0.0.1:0", [], key=KEY, deep_check=check, recheck_seconds=0.02)
    await server.start()
    await asyncio.wait_for(check.started.wait(), 5)
    async with asyncio.timeout(5):
        await server.stop(grace=0)


async def test_stopping_lets_a_call_under_way_finish(plane: Plane) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go_on.wait()

    plane.ingest.answer = lambda request, context: wait()
    call = asyncio.ensure_future(plane.ask().GetPlugin(ingest_pb2.GetPluginRequest()))
    await asyncio.wait_for(entered.wait(), 5)
    stopping = asyncio.create_task(plane.server.stop(grace=5))
    await eventually(lambda: plane.server.why == "draining")
    go_on.set()
    assert await asyncio.wait_for(call, 5) == ingest_pb2.GetPluginResponse()
    await asyncio.wait_for(stopping, 5)


async def test_a_taken_port_is_said_with_its_remedy(plane: Plane) -> None:
    second = Server("decider", plane.server.bound, [], key=KEY, deep_check=plane.deep_check)
    with pytest.raises(Refused) as caught:
        try:
            await second.start()
        finally:
            await second.stop(grace=0)
    assert caught.value.reason == "PORT_TAKEN"
    assert plane.server.bound in caught.value.message
    assert "PRUNELLA_LISTEN" in caught.value.message


async def test_reflection_lists_the_services(plane: Plane) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(plane.bare())
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
    async for answer in call:
        listed = {service.name for service in answer.list_services_response.service}
        assert {"prunella.v1.IngestService", "grpc.health.v1.Health"} <= listed
        break
    call.cancel()
