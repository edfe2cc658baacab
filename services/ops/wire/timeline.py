"""The timeline, traces and dead letters for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from libs.common import names
from libs.common.errors import Invalid
from prunella.v1 import ops_pb2
from prunella.v1.events_pb2 import Event
from services.ops.headlines import headline
from services.ops.timeline import TimelineEntry
from services.ops.traces import Span
from services.ops.wire.facts import decoded_fact

HEX = frozenset("0123456789abcdef")


def entry(row: TimelineEntry) -> ops_pb2.TimelineEntry:
    """A row of the timeline for people."""
    event = Event.FromString(row.payload)
    line = headline(decoded_fact(event, row.label))
    return ops_pb2.TimelineEntry(position=row.position, fact=row.fact, event=event, headline=line, trace_id=row.trace)


def trace_name(name: str) -> tuple[str, str]:
    """What GetTrace asks for: (trace id, "") or ("", incident id). Raises Invalid."""
    if name.startswith("incidents/"):
        return "", names.parse("incidents", name)
    trace = name.lower()
    if len(trace) != 32 or not set(trace) <= HEX:
        raise Invalid(
            f"name must be a trace id (32 hexadecimal digits) or incidents/{{id}}, not {name[:80]!r}",
            reason="BAD_NAME",
            field="name",
            name=name[:80],
        )
    return trace, ""


def span(found: Span) -> ops_pb2.Span:
    """A span for people."""
    made = ops_pb2.Span(
        span_id=found.id,
        parent_span_id=found.parent,
        service=found.service,
        name=found.name,
        error=found.error,
        linked_trace_ids=found.links,
    )
    made.start_time.FromDatetime(found.start)
    made.end_time.FromDatetime(found.end)
    made.attributes.update(_struct(found.attributes))
    return made


def _struct(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in attributes.items()}


def dead_letter(row: Any) -> ops_pb2.DeadLetter:
    """A dead letter for people."""
    made = ops_pb2.DeadLetter(
        consumer=row.consumer,
        event_id=str(row.event_id),
        fact=row.fact,
        reason=row.reason,
        errors=row.errors,
        crashes=row.crashes,
    )
    at: datetime = row.create_time
    made.time.FromDatetime(at)
    return made
