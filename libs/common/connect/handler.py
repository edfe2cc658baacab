"""The Connect protocol over the methods of this process: unary calls and answers that stream, in JSON and protobuf.

Rule: the credential is looked at before the body is. A body is JSON or protobuf by its content type and by nothing
else, so no form of another site can speak here. Whatever is refused has a code, a sentence and a reason, in JSON.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.rpc import code_pb2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from libs.common import access
from libs.common.cancellation import cancel_and_wait
from libs.common.connect import body, errors
from libs.common.connect.methods import Method
from libs.common.errors import Busy, Invalid, Problem, Unavailable
from libs.common.rpc import InProcess, StatusError, status_of

MIB: Final = 1024 * 1024
UNARY: Final = {"application/json": True, "application/proto": False}
STREAM: Final = {"application/connect+json": True, "application/connect+proto": False}
VERBS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
HEADERS: Final = (access.AUTHORIZATION, access.OPERATOR, "traceparent")
LONGEST_TIMEOUT: Final = 300.0
STREAMS: Final = 64
LAST: Final = 0b10


class ConnectHandler:
    """Serves `methods` by path. Bodies have up to `largest` bytes, or what `larger` says of a path."""

    def __init__(
        self,
        in_process: InProcess,
        methods: Mapping[str, Method],
        *,
        largest: int = MIB,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self.in_process = in_process
        self.methods = methods
        self._largest = largest
        self._larger = larger or {}
        self._open = 0

    def routes(self) -> list[Route]:
        """For a Starlette application."""
        return [Route("/prunella.v1.{service}/{method}", self.handle, methods=VERBS)]

    async def handle(self, request: Request) -> Response:
        """Answers one request."""
        try:
            method = self._method(request)
            as_json = _is_json(request, method)
            metadata = [(name, request.headers[name]) for name in HEADERS if name in request.headers]
            self.in_process.authorize(method.path, metadata)
            timeout = _timeout(request)
            content = await body.read(request, self._larger.get(method.path, self._largest))
            if method.streams:
                return self._stream(_Call(method, metadata, timeout, as_json), _unenveloped(content))
            message = body.parse(method, content, json=as_json)
            answer = await self.in_process.unary(method.path, message.SerializeToString(), metadata, timeout)
        except Problem as problem:
            return errors.problem_response(problem)
        except StatusError as refused:
            return errors.response(refused.status)
        except ClientDisconnect:
            return Response(status_code=499)
        text = body.to_json(method, answer) if as_json else answer
        return Response(text, 200, errors.SAFE_HEADERS, "application/json" if as_json else "application/proto")

    def _method(self, request: Request) -> Method:
        method = self.methods.get(request.url.path)
        if method is None:
            unknown = status_of(Invalid("there is no such method here; see /openapi.json", reason="METHOD_UNKNOWN"))
            unknown.code = code_pb2.UNIMPLEMENTED
            raise StatusError(unknown)
        if request.method != "POST":
            raise Invalid(f"a method is called with POST, not {request.method}", reason="NOT_POST")
        return method

    def _stream(self, call: _Call, content: bytes) -> Response:
        message = body.parse(call.method, content, json=call.as_json)
        if self._open >= STREAMS:
            raise Busy(f"{STREAMS} streams are open already", reason="STREAMS_OPEN", retry_after=5.0)
        return _Stream(self._answers(call, message.SerializeToString()), as_json=call.as_json)

    async def _answers(self, call: _Call, message: bytes) -> AsyncIterator[bytes]:
        self._open += 1
        end: dict[str, Any] = {}
        answers = self.in_process.stream(call.method.path, message, call.metadata)
        until = None if call.timeout is None else asyncio.get_running_loop().time() + call.timeout
        try:
            while True:
                async with asyncio.timeout_at(until):
                    answer = await anext(answers)
                yield _enveloped(0, body.to_json(call.method, answer).encode() if call.as_json else answer)
        except StopAsyncIteration:
            pass
        except TimeoutError:
            late = Unavailable("the time the caller gave is over", reason="DEADLINE_EXCEEDED")
            end = {"error": errors.to_json(status_of(late))}
        except StatusError as refused:
            end = {"error": errors.to_json(refused.status)}
        finally:
            self._open -= 1
            await answers.aclose()
        yield _enveloped(LAST, json.dumps(end, ensure_ascii=False).encode())


@dataclass(frozen=True)
class _Call:
    """A call whose answers stream. `timeout` in seconds, None for none."""

    method: Method
    metadata: list[tuple[str, str]]
    timeout: float | None
    as_json: bool


class _Stream(Response):
    """Sends pieces as they come, and stops their source when nobody reads any more."""

    def __init__(self, pieces: AsyncIterator[bytes], *, as_json: bool) -> None:
        kind = f"application/connect+{'json' if as_json else 'proto'}"
        super().__init__(None, 200, errors.SAFE_HEADERS, kind)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """The response as ASGI wants it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        both = {asyncio.create_task(self._write(send)), asyncio.create_task(_gone(receive))}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(both)

    async def _write(self, send: Send) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_json(request: Request, method: Method) -> bool:
    """Whether the body is JSON. Raises Invalid for a type that this method does not take."""
    kinds, kind = STREAM if method.streams else UNARY, body.media_type(request)
    if kind not in kinds:
        raise Invalid(
            f"the body must be {' or '.join(kinds)}, not {kind[:60] or 'nothing'}",
            reason="BODY_TYPE",
            field="content-type",
        )
    if request.headers.get("connect-protocol-version", "1") != "1":
        raise Invalid("connect-protocol-version must be 1", reason="PROTOCOL", field="connect-protocol-version")
    return kinds[kind]


def _timeout(request: Request) -> float | None:
    """The caller's deadline in seconds; None without one."""
    value = request.headers.get("connect-timeout-ms", "")
    if not value:
        return None
    if not value.isascii() or not value.isdecimal() or len(value) > 10:
        raise Invalid(
            "connect-timeout-ms must be up to ten digits", reason="TIMEOUT_INVALID", field="connect-timeout-ms"
        )
    return min(int(value) / 1000, LONGEST_TIMEOUT)


def _enveloped(flags: int, data: bytes) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def _unenveloped(content: bytes) -> bytes:
    """The one message of a request for a stream. Raises Invalid."""
    flags, size = struct.unpack_from(">BI", content) if len(content) >= 5 else (1, 0)
    if flags or len(content) != 5 + size:
        raise Invalid(
            "the body must be one message: a byte 0, its length in four bytes, and as many bytes",
            reason="ENVELOPE_INVALID",
            field="body",
        )
    return content[5:]
