"""Facts: what happened in the plane, as rows of `bus.facts`.

Rule: a fact is written in the transaction of the state it reports, with who did it, why, and the trace it belongs
to. Its name is the field set in the oneof of `Event`, so there is no second table of names to keep in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, NamedTuple

from google.protobuf.message import Message

from libs.common.names import new_id, shard
from prunella.v1.events_pb2 import Event

SCHEMA_VERSION = 1
FIELDS = {
    found.message_type.full_name: found.name
    for found in Event.DESCRIPTOR.oneofs_by_name["fact"].fields
    if found.message_type
}
NAMES = frozenset(FIELDS.values())


class RecordedFact(NamedTuple):
    """A fact, and the trace it was recorded in (W3C traceparent, may be empty)."""

    event: Event
    traceparent: str


INSERT = """
INSERT INTO bus.facts
    (id, time, source, fact, plugin, merchant, incident, actor, reason, cause_id, payload, traceparent)
SELECT * FROM unnest(
    CAST(:ids AS uuid[]), CAST(:times AS timestamptz[]), CAST(:sources AS text[]), CAST(:facts AS text[]),
    CAST(:plugins AS text[]), CAST(:merchants AS text[]), CAST(:incidents AS text[]), CAST(:actors AS text[]),
    CAST(:reasons AS text[]), CAST(:causes AS text[]), CAST(:payloads AS bytea[]), CAST(:traceparents AS text[]))
"""


def fact(
    source: str,
    message: Message,
    *,
    actor: str = "",
    reason: str,
    plugin: str = "",
    merchant: str = "",
    incident: str = "",
    cause: Event | None = None,
) -> Event:
    """A new event that carries `message`; the actor is the source itself unless somebody else caused it."""
    event = Event(
        id=new_id(),
        source=source,
        actor=actor or source,
        reason=reason,
        plugin=plugin,
        merchant=merchant,
        incident=incident,
        cause_id=cause.id if cause else "",
        schema_version=SCHEMA_VERSION,
    )
    getattr(event, FIELDS[message.DESCRIPTOR.full_name]).CopyFrom(message)
    return event


def fact_name(event: Event) -> str:
    """The name of an event's fact; empty when this build does not know it."""
    return event.WhichOneof("fact") or ""


def subject(event: Event) -> str:
    """Where the event is published: `heal.<fact>.<shard>.<plugin>`; `-` stands for the plane itself."""
    return f"heal.{fact_name(event)}.{shard(event.plugin)}.{event.plugin or '-'}"


def columns(recorded: Sequence[RecordedFact]) -> dict[str, list[Any]]:
    """The values of INSERT, which writes all these facts in one statement."""
    events = [event for event, _ in recorded]
    return {
        "ids": [event.id for event in events],
        "times": [event.time.ToDatetime(UTC) for event in events],
        "sources": [event.source for event in events],
        "facts": [fact_name(event) for event in events],
        "plugins": [event.plugin for event in events],
        "merchants": [event.merchant for event in events],
        "incidents": [event.incident for event in events],
        "actors": [event.actor for event in events],
        "reasons": [event.reason for event in events],
        "causes": [event.cause_id for event in events],
        "payloads": [event.SerializeToString() for event in events],
        "traceparents": [traceparent for _, traceparent in recorded],
    }
