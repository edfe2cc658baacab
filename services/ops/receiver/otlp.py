"""OTLP requests ⇄ spans.

Rule: whoever may post here is not trusted with our memory or our rows. Every text is cut, every list is bounded, and a
span without valid ids or times is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from libs.common.text import clean_text
from services.ops.traces import Span
from services.ops.wire import parsed

TEXT = 1024
NAME = 200
ATTRIBUTES = 48
LINKS = 16
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
LATEST_NANO = int((LATEST - EPOCH).total_seconds()) * 10**9


def spans(body: bytes) -> tuple[list[Span], int]:
    """The spans of a request, and how many were left out. Raises Invalid when the body is no such request."""
    found: list[Span] = []
    rejected = 0
    for group in parsed(ExportTraceServiceRequest, body).resource_spans:
        service = _text(_values(group.resource.attributes).get("service.name", "unknown"), NAME)
        for scope in group.scope_spans:
            for sent in scope.spans:
                span = _span(sent, service)
                if span is None:
                    rejected += 1
                else:
                    found.append(span)
    return found, rejected


def answer(rejected: int, reason: str) -> bytes:
    """The response to a request of which some spans were not kept."""
    made = ExportTraceServiceResponse()
    if rejected:
        made.partial_success.rejected_spans = rejected
        made.partial_success.error_message = reason
    return made.SerializeToString()


def _span(sent: OtlpSpan, service: str) -> Span | None:
    start, end = _time(sent.start_time_unix_nano), _time(sent.end_time_unix_nano)
    if len(sent.trace_id) != 16 or len(sent.span_id) != 8 or not any(sent.trace_id) or start is None or end is None:
        return None
    failed = sent.status.code == Status.STATUS_CODE_ERROR
    return Span(
        trace=sent.trace_id.hex(),
        id=sent.span_id.hex(),
        parent=sent.parent_span_id.hex() if any(sent.parent_span_id) else "",
        service=service,
        name=_text(sent.name, NAME) or "unnamed",
        start=start,
        end=max(start, end),
        error=(_text(sent.status.message, TEXT) or "error") if failed else "",
        attributes=_values(sent.attributes),
        links=tuple(sorted({link.trace_id.hex() for link in sent.links[:LINKS] if len(link.trace_id) == 16})),
    )


def _time(nano: int) -> datetime | None:
    time = EPOCH + timedelta(microseconds=min(nano, LATEST_NANO) // 1000)
    return time if EARLIEST <= time < LATEST else None


def _values(attributes: Iterable[KeyValue]) -> dict[str, str | bool | int | float]:
    values: dict[str, str | bool | int | float] = {}
    for pair in attributes:
        if len(values) >= ATTRIBUTES:
            break
        values[_text(pair.key, NAME)] = _value(pair.value)
    return values


def _value(value: AnyValue) -> str | bool | int | float:
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
    if kind == "string_value":
        return _text(value.string_value, TEXT)
    if kind == "array_value":
        return _text(", ".join(str(_value(item)) for item in value.array_value.values[:ATTRIBUTES]), TEXT)
    return _text(str(value), TEXT) if kind else ""


def _text(value: object, most: int) -> str:
    return clean_text(str(value), most)
