"""ops passes on what people ask and tell the other services, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from deploy.local.testing import free_ports
from libs.common import access, rpc
from libs.common.errors import Denied, Refused, Unauthenticated, Unavailable
from prunella.v1 import agent_pb2, decider_pb2, ingest_pb2, ops_pb2, patcher_pb2, queue_pb2
from services.ops.forward import Forwarder, Passed, passed, services

KEY = "5a" * 32
PERSON = "ann"
FILES = (agent_pb2, decider_pb2, ingest_pb2, ops_pb2, patcher_pb2, queue_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
PASSED = {method.path for method in passed()}
STREAM = "/prunella.v1.QueueService/GetTask"  # plays a method that streams


async def _fine() -> None:
    return None


class Everything(grpc.GenericRpcHandler):
    """A service that answers every method with what it was sent, and remembers who asked how."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, dict[str, Any], float | None]] = []
        self.refusal: Status | None = None
        self.slow = False

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method

        async def note(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.asked.append((path, access.caller(), request, metadata, context.time_remaining()))
            if self.slow:
                await asyncio.Event().wait()
            if self.refusal is not None:
                trailers = (("grpc-status-details-bin", self.refusal.SerializeToString()),)
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal.message, trailers)
            return request

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(3):
                yield await note(request, context)

        if path == STREAM:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(note)


def server(name: str, handlers: list[tuple[Any, str]], address: str = "127.0.0.1:0") -> rpc.Server:
    def add(handler: Any, to: Any) -> None:
        to.add_generic_rpc_handlers((handler,))

    return rpc.Server(
        name, address, [(add, handler, service) for handler, service in handlers], key=KEY, deep_check=_fine
    )


class Plane:
    """ops' forwarders and one stand-in for all the services behind them."""

    def __init__(self) -> None:
        self.behind = Everything()
        self._channels: list[grpc.aio.Channel] = []
        self.away: set[str] = set()

    async def start(self) -> Plane:
        names = [(self.behind, service.full_name) for service in services().values()]
        self.siblings = server("sibling", names)
        port = await self.siblings.start()
        way = self.channel(f"127.0.0.1:{port}", "ops")
        nowhere = self.channel(f"127.0.0.1:{free_ports(1)[0]}", "ops")
        methods = [Passed(one.path, one.to, one.path == STREAM) for one in passed()]
        handlers = []
        for name, service in services().items():
            handlers.append(
                (Forwarder(name, methods, lambda name=name: self._way(name, way, nowhere)), service.full_name)
            )  # type: ignore[misc]
        self.ops = server("ops", handlers)
        self.address = f"127.0.0.1:{await self.ops.start()}"
        self.person = self.channel(self.address, "operator", PERSON)
        return self

    def _way(self, name: str, way: grpc.aio.Channel, nowhere: grpc.aio.Channel) -> grpc.aio.Channel | None:
        return None if f"{name} unknown" in self.away else nowhere if name in self.away else way

    def channel(self, address: str, caller: str, person: str = "") -> grpc.aio.Channel:
        made = rpc.channel(address, caller=caller, key=KEY, operator=person)
        self._channels.append(made)
        return made

    async def ask(self, path: str, request: bytes = b"", channel: grpc.aio.Channel | None = None, **how: Any) -> bytes:
        return bytes(await (channel or self.person).unary_unary(path)(request, **{"timeout": 10} | how))

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.ops.stop(0)
        await self.siblings.stop(0)


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    made = await Plane().start()
    yield made
    await made.stop()


def example(path: str) -> Message:
    """A request of a method with every text set, and a field its receiver may not know yet."""
    made = GetMessageClass(METHODS[path].input_type)()
    for field in METHODS[path].input_type.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(made, field.name, f"a {field.name}")
    made.MergeFromString(b"\xfa\x3e\x05later")
    return made


async def test_each_method_of_the_table_reaches_its_service_as_the_person_sent_it(plane: Plane) -> None:
    for path in sorted(PASSED - {STREAM}):
        request = example(path).SerializeToString()
        assert await plane.ask(path, request) == request
        asked, caller, heard, _, _ = plane.behind.asked[-1]
        assert (asked, caller, heard) == (path, f"operators/{PERSON}", request)
    assert len(plane.behind.asked) == len(PASSED) - 1 > 40


@pytest.mark.parametrize(
    "path",
    sorted(
        set(METHODS)
        - PASSED
        - {f"/prunella.v1.OpsService/{m}" for m in ops_pb2.DESCRIPTOR.services_by_name["OpsService"].methods_by_name}
    ),
)
async def test_no_method_of_agents_workers_and_services_passes(plane: Plane, path: str) -> None:
    with pytest.raises((Denied, Refused, Unauthenticated)):
        await plane.ask(path)
    assert not plane.behind.asked


def test_what_people_tell_and_ask_is_passed_and_what_agents_and_workers_say_is_not() -> None:
    def through(name: str) -> bool:
        return f"/prunella.v1.{name}" in PASSED

    assert all(
        map(through, ("IngestService/CloseIncident", "PatcherService/EngageKillSwitch", "QueueService/RetryTask"))
    )
    assert all(map(through, ("DeciderService/ExplainDecision", "PatcherService/ApproveAttempt")))
    assert not any(
        map(through, ("AgentGateway/Heartbeat", "IngestService/IssueCommand", "PatcherService/AuthorizeApply"))
    )
    assert not any(
        map(through, ("QueueService/ClaimTasks", "PatcherService/FetchRelease", "IngestService/GetTelemetry"))
    )
    assert all(access.ACCESS[path].role for path in PASSED)


@pytest.mark.parametrize("caller", ["decider", "mcp", "worker"])
async def test_it_lends_its_name_to_people_only(plane: Plane, caller: str) -> None:
    with pytest.raises(Denied) as denied:
        await plane.ask("/prunella.v1.IngestService/ListPlugins", channel=plane.channel(plane.address, caller))
    assert denied.value.reason == "NOT_A_PERSON"
    assert not plane.behind.asked


async def test_the_trace_and_the_deadline_go_along(plane: Plane) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    said = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
    await plane.ask("/prunella.v1.IngestService/CloseIncident", metadata=said, timeout=7)
    _, _, _, metadata, remaining = plane.behind.asked[-1]
    assert metadata["traceparent"][3:35] == trace
    # On each of the two hops gRPC sends what is left in hundredths of a second, rounded up.
    assert remaining is not None and 5 < remaining <= 7.02
    plane.behind.slow = True
    with pytest.raises(Unavailable) as late:
        await plane.ask("/prunella.v1.IngestService/CloseIncident", timeout=0.3)
    assert late.value.reason == "DEADLINE_EXCEEDED"


async def test_a_refusal_comes_back_with_every_detail_it_was_given(plane: Plane) -> None:
    status = Status(code=9, message="two fields are wrong")
    info = error_details_pb2.ErrorInfo(reason="TWO_WRONG", domain="prunella", metadata={"a": "1"})
    status.details.add().Pack(info)
    wrong = error_details_pb2.BadRequest()
    wrong.field_violations.add(field="name", description="first")
    wrong.field_violations.add(field="reason", description="second")
    status.details.add().Pack(wrong)
    status.details.add().Pack(error_details_pb2.Help(links=[{"url": "https://example.test"}]))
    plane.behind.refusal = status
    bare = grpc.aio.insecure_channel(plane.address)
    identity = ((access.AUTHORIZATION, access.service_token(KEY, "operator")),)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bare.unary_unary("/prunella.v1.PatcherService/CancelAttempt")(b"", metadata=identity, timeout=10)
    await bare.close()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    trailers = dict(refused.value.trailing_metadata() or ())
    assert Status.FromString(trailers["grpc-status-details-bin"]) == status  # type: ignore[arg-type]


async def test_a_service_that_is_away_is_named(plane: Plane) -> None:
    plane.away = {"queue", "patcher unknown"}
    with pytest.raises(Unavailable) as away:
        await plane.ask("/prunella.v1.QueueService/ListTasks")
    assert away.value.reason == "UNREACHABLE" and "QueueService" in away.value.message
    with pytest.raises(Unavailable) as unknown:
        await plane.ask("/prunella.v1.PatcherService/GetPolicy")
    assert unknown.value.reason == "ADDRESS_MISSING" and "PRUNELLA_PATCHER_ADDRESS" in unknown.value.message
    await plane.ask("/prunella.v1.IngestService/ListPlugins")


async def test_answers_that_stream_pass_one_by_one(plane: Plane) -> None:
    heard = [bytes(answer) async for answer in plane.person.unary_stream(STREAM)(b"\n\x01a", timeout=10)]
    assert heard == [b"\n\x01a"] * 3
