"""Where services send their spans: POST /v1/traces.

Rule: a body is at most 4 MiB, packed and unpacked; whoever sends more is told so. Spans that cannot be kept are
answered as OTLP's partial success, so that a client neither stops nor sends them again.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from libs.common.connect import body
from libs.common.errors import Invalid
from services.ops.receiver import otlp
from services.ops.receiver.span_buffer import SpanBuffer, dropped

LARGEST = 4 << 20
PROTOBUF = "application/x-protobuf"
STATUS = {"BODY_TYPE": 415, "BODY_ENCODING": 415, "BODY_TOO_LARGE": 413, "BODY_LATE": 408}


def routes(buffer: SpanBuffer, forward: Callable[[bytes], None]) -> list[BaseRoute]:
    """For the application of ops; `forward` hands a request's body to another collector and never waits."""

    async def traces(request: Request) -> Response:
        try:
            data = await _body(request)
            spans, malformed = otlp.spans(data)
        except Invalid as problem:
            return PlainTextResponse(problem.message, STATUS.get(problem.reason, 400))
        dropped.labels("malformed").inc(malformed)
        lost = len(spans) - buffer.offer(spans)
        forward(data)
        reason = "; ".join(text for text, count in (("no room", lost), ("bad ids or times", malformed)) if count)
        return Response(otlp.answer(lost + malformed, reason), media_type=PROTOBUF)

    return [Route("/v1/traces", traces, methods=["POST"])]


async def _body(request: Request) -> bytes:
    if (kind := body.media_type(request)) != PROTOBUF:
        raise Invalid(f"spans are taken as {PROTOBUF}, not {kind[:60] or 'nothing'}", reason="BODY_TYPE")
    return await body.read(request, LARGEST, gzip=True)
