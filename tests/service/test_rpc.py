"""What a handler raises reaches the caller whole; deadlines, retries and bounds hold; over a real socket."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from libs.common import access
from libs.common.errors import (
    Busy,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    Problem,
    Refused,
    Stale,
    Unauthenticated,
    Unavailable,
)
from libs.common.rpc import channel
from prunella.v1 import ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc
from tests.service.rpc_plane import KEY, Plane, raises, running


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as started:
        yield started


@pytest.mark.parametrize("kind", [Invalid, NotFound, Conflict, Stale, Refused, Denied, Unauthenticated, Busy])
async def test_a_problem_raised_by_a_handler_reaches_the_caller_whole(plane: Plane, kind: type[Problem]) -> None:
    plane.ingest.answer = raises(
        kind("shop-7 is too old", reason="TOO_OLD", field="plugin", retry_after=1.5, plugin="shop-7", reason_code="x")
    )
    with pytest.raises(kind) as caught:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    assert type(caught.value) is kind
    assert caught.value.message == "shop-7 is too old"
    assert caught.value.reason == "TOO_OLD"
    assert caught.value.field == "plugin"
    assert caught.value.retry_after == 1.5
    assert caught.value.metadata == {"plugin": "shop-7", "reason_code": "x"}


async def test_a_defect_reaches_the_caller_as_internal_without_detail(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.ingest.answer = raises(RuntimeError("password hunter2"))
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    token = (("authorization", access.service_token(KEY, "operator")),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetPlugin(ingest_pb2.GetPluginRequest(), timeout=5, metadata=token)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in f"{caught.value.details()} {caught.value.trailing_metadata()}"
    with pytest.raises(Problem) as mapped:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    assert mapped.value.reason == "INTERNAL"


async def test_unavailable_is_tried_again_and_then_told(plane: Plane) -> None:
    failures = iter([Unavailable("database away", reason="DATABASE_AWAY")])

    def answer(request: Any, context: Any) -> None:
        for problem in failures:
            raise problem

    plane.ingest.answer = answer
    await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    assert len(plane.ingest.callers) == 2

    plane.ingest.answer = raises(Unavailable("database away", reason="DATABASE_AWAY"))
    with pytest.raises(Unavailable) as caught:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    assert caught.value.reason == "DATABASE_AWAY"
    assert len(plane.ingest.callers) == 5, "three tries"


async def test_a_long_pushback_forbids_further_tries(plane: Plane) -> None:
    plane.ingest.answer = raises(Unavailable("come back later", reason="AWAY", retry_after=60))
    with pytest.raises(Unavailable) as caught:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    assert caught.value.retry_after == 60
    assert len(plane.ingest.callers) == 1


async def test_a_server_that_is_not_there_is_unreachable_and_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        async with channel(address, caller="patcher", key=KEY) as made:
            with pytest.raises(Unavailable) as caught:
                await ingest_pb2_grpc.IngestServiceStub(made).GetPlugin(ingest_pb2.GetPluginRequest(), timeout=3)
    assert caught.value.reason == "UNREACHABLE"
    assert f"IngestService at {address}" in caught.value.message


def test_a_channel_needs_an_address() -> None:
    with pytest.raises(Invalid, match="PRUNELLA_<SERVICE>_ADDRESS"):
        channel("", caller="patcher", key=KEY)


async def test_calls_without_a_deadline_get_one(plane: Plane) -> None:
    await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest(), timeout=3)
    first, second = plane.ingest.deadlines
    assert first is not None
    assert 8 < first < 11, "gRPC rounds what it sends"
    assert second is not None
    assert 1 < second < 4


async def test_a_deadline_that_passes_is_told_as_such(plane: Plane) -> None:
    plane.ingest.answer = lambda request, context: asyncio.sleep(60)
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest(), timeout=0.1)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < 30


async def test_a_foreign_client_without_a_deadline_is_bounded_by_the_server(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.rpc.guard.LONGEST_CALL", 0.05)
    plane.ingest.answer = lambda request, context: asyncio.sleep(5)
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    with pytest.raises(grpc.aio.AioRpcError, match=r"no answer within"):
        await stub.GetPlugin(
            ingest_pb2.GetPluginRequest(), metadata=(("authorization", access.service_token(KEY, "operator")),)
        )


async def test_a_streamed_answer_ends_in_the_problem_that_ended_it(plane: Plane) -> None:
    stub = patcher_pb2_grpc.PatcherServiceStub(plane.channel("ingest"))
    chunks = []
    with pytest.raises(NotFound) as caught:
        async for chunk in stub.FetchRelease(patcher_pb2.FetchReleaseRequest(digest="missing")):
            chunks.append(chunk.offset)  # noqa: PERF401 (the loop is what fails)
    assert chunks == [0, 1, 2]
    assert caught.value.reason == "ARTIFACT_UNKNOWN"


async def test_a_stream_that_is_cancelled_ends_on_the_server_too(plane: Plane) -> None:
    stub = patcher_pb2_grpc.PatcherServiceStub(plane.channel("ingest"))
    call = stub.FetchRelease(patcher_pb2.FetchReleaseRequest(digest="endless"))
    async for _ in call:
        break
    call.cancel()
    await asyncio.wait_for(plane.patcher.ended.wait(), 5)


async def test_a_message_above_the_bound_is_refused() -> None:
    async with running(max_message=64 * 1024) as plane:
        await plane.ask("patcher").IssueCommand(ingest_pb2.IssueCommandRequest(config=b"x" * 1000))
        with pytest.raises(Invalid) as caught:
            await plane.ask("patcher").IssueCommand(ingest_pb2.IssueCommandRequest(config=b"x" * 70_000))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert len(plane.ingest.callers) == 1
