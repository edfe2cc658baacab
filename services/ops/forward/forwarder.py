"""The generic handler: bytes in, bytes out, and the sibling's own word on everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from libs.common import access
from libs.common.errors import Denied, Unavailable
from prunella.v1 import decider_pb2, ingest_pb2, patcher_pb2, queue_pb2

Context = Any
Call = Callable[..., Any]

# Who asks without a deadline waits no longer than this, in seconds.
LONGEST = 60.0
FILES = {"ingest": ingest_pb2, "decider": decider_pb2, "patcher": patcher_pb2, "queue": queue_pb2}


@dataclass(frozen=True)
class Passed:
    """A method that is passed on to the service `to`."""

    path: str
    to: str
    streams: bool


def services() -> dict[str, ServiceDescriptor]:
    """The services people ask through ops, by who owns them."""
    return {name: file.DESCRIPTOR.services_by_name[f"{name.capitalize()}Service"] for name, file in FILES.items()}


def passed() -> list[Passed]:
    """Every method that is passed on."""
    found = [
        Passed(f"/{service.full_name}/{method.name}", name, method.server_streaming)
        for name, service in services().items()
        for method in service.methods
    ]
    return [method for method in found if access.passes(method.path)]


class Forwarder(grpc.GenericRpcHandler):
    """Answers the methods of one service by asking it; `channel` gives the way there, None when nobody said where."""

    def __init__(self, to: str, methods: list[Passed], channel: Callable[[], grpc.aio.Channel | None]) -> None:
        self.to = to
        self._channel = channel
        self._handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]] = {
            method.path: self._handler(method) for method in methods if method.to == to
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method; None for what is not passed on."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: Passed) -> grpc.RpcMethodHandler[Any, Any]:
        if method.streams:
            return grpc.unary_stream_rpc_method_handler(self._stream(method))
        return grpc.unary_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: Passed) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def ask(request: bytes, context: Context) -> bytes:
            call: Call = self._way(method).unary_unary(method.path)
            remaining: float | None = context.time_remaining()
            timeout = LONGEST if remaining is None else remaining
            answer: bytes = await call(request, timeout=timeout, metadata=_operator_metadata(method))
            return answer

        return ask

    def _stream(self, method: Passed) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        async def listen(request: bytes, context: Context) -> AsyncIterator[bytes]:
            call: Call = self._way(method).unary_stream(method.path)
            async for answer in call(request, timeout=context.time_remaining(), metadata=_operator_metadata(method)):
                yield answer

        return listen

    def _way(self, method: Passed) -> grpc.aio.Channel:
        channel = self._channel()
        if channel is None:
            raise Unavailable(
                f"ops was not told where {self.to} listens; set PRUNELLA_{self.to.upper()}_ADDRESS to its host:port",
                reason="ADDRESS_MISSING",
                service=self.to,
                method=method.path,
            )
        return channel


def _operator_metadata(method: Passed) -> tuple[tuple[str, str], ...]:
    """Who asks, as metadata. Raises Denied for whoever is no person: services ask each other without a go-between."""
    caller = access.caller()
    collection, _, operator = caller.partition("/")
    if collection != "operators":
        raise Denied(
            f"ops passes {method.path} on for people only; {caller} must ask {method.to} itself",
            reason="NOT_A_PERSON",
            caller=caller,
            method=method.path,
        )
    return ((access.OPERATOR, operator),)
