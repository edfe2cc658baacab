"""Servers and channels keep their promises to each other, over a real socket."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

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
from libs.common.rpc import Server, channel
from libs.common.telemetry import Telemetry, current, current_trace_id, trace_id
from prunella.v1 import agent_pb2, agent_pb2_grpc, ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc

KEY = "5e" * 32
OTHER_KEY = "0a" * 32
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Answer = Callable[[Any, Any], Any]


class Ingest(ingest_pb2_grpc.IngestServiceServicer):
    """Answers as the test says, and remembers who asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request, context: None
        self.callers: list[str] = []
        self.traces: list[str] = []
        self.services: list[str] = []
        self.deadlines: list[float | None] = []

    async def _handle(self, request: Any, context: Any, response: Any) -> Any:
        self.callers.append(access.caller(context))
        self.traces.append(current_trace_id())
        self.services.append(current().service)
        self.deadlines.append(context.time_remaining())
        said = self.answer(request, context)
        if asyncio.iscoroutine(said):
            await said
        return response

    async def GetPlugin(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._handle(request, context, ingest_pb2.GetPluginResponse())

    async def CloseIncident(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._handle(request, context, ingest_pb2.CloseIncidentResponse())

    async def IssueCommand(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._handle(request, context, ingest_pb2.IssueCommandResponse())


class Gateway(agent_pb2_grpc.AgentGatewayServicer):
    """Echoes acknowledgements; checks nothing but the shape of a credential."""

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        plugin, _ = access.agent_credential(context)
        async for request in request_iterator:
            if request.beat.sequence < 0:
                raise Invalid("sequence must not be negative", reason="BAD_SEQUENCE", field="beat.sequence")
            yield agent_pb2.ConnectResponse(ack=agent_pb2.BeatAck(boot_id=plugin, sequence=request.beat.sequence))


class Patcher(patcher_pb2_grpc.PatcherServiceServicer):
    """Streams three chunks, then says what the digest asks for."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def FetchRelease(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            for offset in range(3):
                yield patcher_pb2.FetchReleaseResponse(offset=offset)
            if request.digest == "missing":
                raise NotFound("no such artifact", reason="ARTIFACT_UNKNOWN")
            while request.digest == "endless":
                await asyncio.sleep(0.01)
                yield patcher_pb2.FetchReleaseResponse()
        finally:
            self.ended.set()


class Plane:
    """One server with three services, and channels to it."""

    def __init__(self, **options: Any) -> None:
        self.ingest, self.patcher = Ingest(), Patcher()
        self.sick: Exception | None = None
        self.spans = InMemorySpanExporter()
        self.telemetry = Telemetry("ingest", exporter=self.spans)
        self.channels: list[grpc.aio.Channel] = []
        self.server = Server(
            "ingest",
            "127.0.0.1:0",
            [
                (ingest_pb2_grpc.add_IngestServiceServicer_to_server, self.ingest, "prunella.v1.IngestService"),
                (agent_pb2_grpc.add_AgentGatewayServicer_to_server, Gateway(), "prunella.v1.AgentGateway"),
                (patcher_pb2_grpc.add_PatcherServiceServicer_to_server, self.patcher, "prunella.v1.PatcherService"),
            ],
            key=KEY,
            deep_check=self.deep_check,
            telemetry=self.telemetry,
            recheck_seconds=0.02,
            **options,
        )

    async def deep_check(self) -> None:
        if self.sick:
            raise self.sick

    def channel(self, caller: str = "operator", key: str = KEY, **options: Any) -> grpc.aio.Channel:
        made = channel(self.server.bound, caller=caller, key=key, **options)
        self.channels.append(made)
        return made

    def bare(self) -> grpc.aio.Channel:
        made = grpc.aio.insecure_channel(self.server.bound)
        self.channels.append(made)
        return made

    def ask(self, caller: str = "operator", key: str = KEY, **options: Any) -> Any:
        return ingest_pb2_grpc.IngestServiceStub(self.channel(caller, key, **options))

    async def health(self, service: str = "") -> int:
        stub = health_pb2_grpc.HealthStub(self.bare())
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return int(answer.status)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Plane]:
    plane = Plane(**options)
    await plane.server.start()
    try:
        yield plane
    finally:
        for made in plane.channels:
            await made.close()
        await plane.server.stop(grace=0.2)
        plane.telemetry.close()


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as started:
        yield started


async def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def raises(problem: Exception) -> Answer:
    def answer(request: Any, context: Any) -> None:
        raise problem

    return answer


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
    assert 8 < first <= 10
    assert second is not None
    assert 1 < second <= 3


async def test_a_deadline_that_passes_is_told_as_such(plane: Plane) -> None:
    plane.ingest.answer = lambda request, context: asyncio.sleep(5)
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest(), timeout=0.1)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < 2


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


async def test_only_patcher_issues_commands(plane: Plane) -> None:
    request = ingest_pb2.IssueCommandRequest()
    await plane.ask("patcher").IssueCommand(request)
    assert plane.ingest.callers == ["patcher"]
    for other in ("ingest", "decider", "queue", "ops", "operator"):
        with pytest.raises(Denied) as caught:
            await plane.ask(other).IssueCommand(request)
        assert caught.value.reason == "CALLER_NOT_ALLOWED"
    assert plane.ingest.callers == ["patcher"]


async def test_a_caller_without_or_with_a_wrong_credential_is_turned_away(plane: Plane) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await plane.ask("patcher", OTHER_KEY).GetPlugin(ingest_pb2.GetPluginRequest())
    assert caught.value.reason == "CREDENTIAL_INVALID"
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    with pytest.raises(grpc.aio.AioRpcError) as bare:
        await stub.GetPlugin(ingest_pb2.GetPluginRequest(), timeout=5)
    assert bare.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert plane.ingest.callers == []


async def test_a_person_is_known_by_name(plane: Plane) -> None:
    request = ingest_pb2.CloseIncidentRequest()
    await plane.ask("operator").CloseIncident(request)
    await plane.ask("operator", operator="ada").CloseIncident(request)
    await plane.ask("ops", operator="grace").CloseIncident(request)
    assert plane.ingest.callers == ["operators/local", "operators/ada", "operators/grace"]


async def test_an_agents_stream_runs_under_its_credential_and_tells_problems(plane: Plane) -> None:
    stub = agent_pb2_grpc.AgentGatewayStub(plane.bare())
    call = stub.Connect(metadata=(("authorization", "Plugin p1:secret"),))
    await call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(sequence=7)))
    answer = await call.read()
    assert (answer.ack.boot_id, answer.ack.sequence) == ("p1", 7)
    await call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(sequence=-1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_agent_without_a_credential_gets_no_stream(plane: Plane) -> None:
    call = agent_pb2_grpc.AgentGatewayStub(plane.bare()).Connect()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_agent_may_not_ask_services(plane: Plane) -> None:
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetPlugin(
            ingest_pb2.GetPluginRequest(), timeout=5, metadata=(("authorization", "Plugin p1:secret"),)
        )
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


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
        await second.start()
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


async def test_one_trace_goes_through_a_call(plane: Plane) -> None:
    mine = InMemorySpanExporter()
    patcher = Telemetry("patcher", exporter=mine)
    stub = plane.ask("patcher", telemetry=patcher)
    with patcher.use(), patcher.span("attempt"):
        here = current_trace_id()
        await stub.IssueCommand(ingest_pb2.IssueCommandRequest())
        await stub.GetPlugin(ingest_pb2.GetPluginRequest())
    assert plane.ingest.traces == [here, here]
    assert plane.ingest.services == ["ingest", "ingest"]
    patcher.close()
    plane.telemetry.close()
    served = {span.name: span for span in plane.spans.get_finished_spans()}
    called = {span.name: span for span in mine.get_finished_spans()}
    name = "prunella.v1.IngestService/IssueCommand"
    assert served[name].parent.span_id == called[name].context.span_id
    assert served[name].resource.attributes["service.name"] == "ingest"


async def test_reads_outside_a_trace_leave_no_span_but_changes_do(plane: Plane) -> None:
    await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    plane.ingest.answer = raises(Refused("closed already", reason="INCIDENT_CLOSED"))
    with pytest.raises(Refused):
        await plane.ask().CloseIncident(ingest_pb2.CloseIncidentRequest())
    assert plane.ingest.traces[0] == ""
    plane.telemetry.close()
    (span,) = plane.spans.get_finished_spans()
    assert span.name == "prunella.v1.IngestService/CloseIncident"
    assert span.attributes["error.type"] == "INCIDENT_CLOSED"
    assert span.attributes["caller"] == "operators/local"
    assert trace_id(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01") == plane.ingest.traces[1]
