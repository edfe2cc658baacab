"""A server's methods for whoever is in the same process: the same handlers behind the same guard, without a network.

Rule: what is true for a call over gRPC is true here, since nothing is decided here: credentials, traces, figures and
problems are the guard's. Bytes go in and come out; what the caller gets besides is a `StatusError` with the status that
gRPC would have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from libs.common import access
from libs.common.errors import Invalid, Problem, Refused, Unavailable
from libs.common.rpc.guard import Guard
from libs.common.rpc.status import DETAILS, LONGEST_MESSAGE, status_of

Metadata = Sequence[tuple[str, str]]


class StatusError(Exception):
    """A call that did not end well, as its status says."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass(frozen=True)
class InProcess:
    """The methods of one server. `handlers` are gRPC's own, as a servicer registers them."""

    handlers: Sequence[grpc.GenericRpcHandler]
    guard: Guard

    def authorize(self, path: str, metadata: Metadata) -> None:
        """Whether a credential may call a method at all, before anything else is read. Raises Problem."""
        access.check(path, metadata, self.guard.key)

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout: float | None = None) -> bytes:
        """The answer of a unary method within `timeout` seconds. Raises StatusError."""
        context = _Context(metadata, timeout)
        try:
            handler = await self._handler(path, metadata)
            message = _read(handler, request)
            async with asyncio.timeout(timeout):
                answer = await handler.unary_unary(message, context)
        except grpc.aio.AbortError:
            raise StatusError(context.status) from None
        except TimeoutError as error:
            raise StatusError(status_of(_late(path))) from error
        except Problem as problem:
            raise StatusError(status_of(problem)) from problem
        return _written(handler, answer)

    async def stream(self, path: str, request: bytes, metadata: Metadata) -> AsyncGenerator[bytes, None]:
        """The answers of a method that streams them, until they end or nobody reads any more. Raises StatusError."""
        context = _Context(metadata, None)
        try:
            handler = await self._handler(path, metadata)
            async for answer in handler.unary_stream(_read(handler, request), context):
                yield _written(handler, answer)
        except grpc.aio.AbortError:
            raise StatusError(context.status) from None
        except Problem as problem:
            raise StatusError(status_of(problem)) from problem

    async def _handler(self, path: str, metadata: Metadata) -> Any:
        details = _Details(path, tuple(metadata))

        async def look(asked: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
            found = (handler.service(asked) for handler in self.handlers)
            return next((handler for handler in found if handler is not None), None)

        handler = await self.guard.intercept_service(look, details)
        if handler is None:
            raise Refused(f"there is no method {path} here", reason="UNIMPLEMENTED", method=path)
        return handler


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class _Context:
    """As much of gRPC's context as handlers and the guard look at."""

    def __init__(self, metadata: Metadata, timeout: float | None) -> None:
        self._metadata = tuple(metadata)
        self._until = None if timeout is None else time.monotonic() + timeout
        self.status = Status(code=code_pb2.UNKNOWN)

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        self.status = Status(code=code.value[0], message=details[:LONGEST_MESSAGE])
        rich = dict(trailing_metadata).get(DETAILS)
        if isinstance(rich, bytes):
            self.status.MergeFromString(rich)
        raise grpc.aio.AbortError


def _read(handler: Any, request: bytes) -> Any:
    try:
        return handler.request_deserializer(request) if handler.request_deserializer else request
    except DecodeError as error:
        raise Invalid("the body is not what this method takes", reason="MALFORMED", field="body") from error


def _written(handler: Any, answer: Any) -> bytes:
    return bytes(handler.response_serializer(answer)) if handler.response_serializer else bytes(answer)


def _late(path: str) -> Unavailable:
    return Unavailable(f"{path} did not answer in time", reason="DEADLINE_EXCEEDED", method=path)
