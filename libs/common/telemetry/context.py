"""W3C trace context as text: what travels in gRPC metadata, NATS headers, fact rows and commands.

Everything that carries a trace across a row or a message stores one `traceparent`; an empty one means no trace.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def current_traceparent() -> str:
    """The trace context of the running code; empty outside any trace."""
    return format_traceparent(trace.get_current_span().get_span_context())


def current_trace_id() -> str:
    """The trace id (32 hex digits) of the running code; empty outside any trace."""
    return trace_id(current_traceparent())


def trace_id(traceparent: str) -> str:
    """The trace id (32 hex digits) in a traceparent; empty when there is none."""
    found = parse_traceparent(traceparent)
    return f"{found.trace_id:032x}" if found else ""


def new_traceparent(parent: str = "") -> str:
    """A fresh span id, in the parent's trace or in a new one; for a span that is made afterwards (`span_at`)."""
    above = parse_traceparent(parent)
    trace_number = above.trace_id if above else _number(16)
    return f"00-{trace_number:032x}-{_number(8):016x}-01"


def parse_traceparent(text: str) -> SpanContext | None:
    """The span context in a traceparent; None when it is empty or not well formed."""
    found = _TRACEPARENT.fullmatch(text)
    if not found:
        return None
    context = SpanContext(
        int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=TraceFlags(int(found[3], 16))
    )
    return context if context.is_valid else None


def format_traceparent(context: SpanContext) -> str:
    """A span context as text; empty when it is not valid."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@contextmanager
def use_traceparent(traceparent: str) -> Iterator[None]:
    """Run the block as part of the trace in `traceparent`; an empty or damaged one means outside any trace."""
    context = parse_traceparent(traceparent)
    span = NonRecordingSpan(context) if context else trace.INVALID_SPAN
    token = otel_context.attach(trace.set_span_in_context(span, otel_context.Context()))
    try:
        yield
    finally:
        otel_context.detach(token)


def _number(size: int) -> int:
    return int.from_bytes(secrets.token_bytes(size), "big") or 1
