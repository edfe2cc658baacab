"""Where services send their spans: POST /v1/traces.

Rule: a body is at most 4 MiB, packed and unpacked; whoever sends more is told so. Spans that cannot be kept are
answered as OTLP's partial success, so that a client neither stops nor sends them again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from libs.common.errors import Invalid
from services.ops.receiver import otlp
from services.ops.receiver.intake import Intake, dropped

LARGEST = 4 << 20
PROTOBUF = "application/x-protobuf"


class TooLarge(Invalid):
    """The body is larger than we take."""


def routes(intake: Intake, pass_on: Callable[[bytes], None]) -> list[BaseRoute]:
    """For the application of ops; `pass_on` hands a request's body to another collector and never waits."""

    async def traces(request: Request) -> Response:
        try:
            body = await _body(request)
            spans, malformed = otlp.spans(body)
        except TooLarge as problem:
            return PlainTextResponse(problem.message, 413)
        except Invalid as problem:
            return PlainTextResponse(problem.message, 415 if problem.reason == "WRONG_TYPE" else 400)
        dropped.labels("malformed").inc(malformed)
        lost = len(spans) - intake.offer(spans)
        pass_on(body)
        why = "; ".join(text for text, count in (("no room", lost), ("bad ids or times", malformed)) if count)
        return Response(otlp.answer(lost + malformed, why), media_type=PROTOBUF)

    return [Route("/v1/traces", traces, methods=["POST"])]


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != PROTOBUF:
        raise Invalid(f"spans are taken as {PROTOBUF}, not {kind[:60] or 'nothing'}", reason="WRONG_TYPE")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST:
            raise TooLarge(f"a body may have {LARGEST} bytes", reason="TOO_LARGE")
        parts.append(part)
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        return _unpacked(body)
    if encoding not in {"", "identity"}:
        raise Invalid(f"content-encoding {encoding[:40]!r} is not known; use gzip or none", reason="WRONG_TYPE")
    return body


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, LARGEST + 1)
    except zlib.error as error:
        raise Invalid("the body is no gzip", reason="MALFORMED") from error
    if len(plain) > LARGEST:
        raise TooLarge(f"a body may unpack to {LARGEST} bytes", reason="TOO_LARGE")
    if not unpacker.eof:
        raise Invalid("the body is cut gzip", reason="MALFORMED")
    return plain
