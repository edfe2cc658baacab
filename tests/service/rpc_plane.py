"""A server with three services on a real socket, and channels to it; what the rpc tests stand on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common import access
from libs.common.errors import (
    Invalid,
    NotFound,
)
from libs.common.rpc import Server, channel
from libs.common.telemetry import Telemetry, current_telemetry, current_trace_id
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
        self.services.append(current_telemetry().service)
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
