"""Entries and checkpoints of the audit log ⇄ protobuf, and what a fact says of before and after."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC

from google.protobuf.message import DecodeError

from libs.common.errors import Invalid
from libs.common.facts import FIELDS, fact_name
from prunella.v1 import audit_pb2
from prunella.v1.events_pb2 import Event
from services.ops.audit import comparison
from services.ops.audit.entry import Fact
from services.ops.headlines import headline
from services.ops.store.audit import AuditFilter, Checkpoint, Leaf
from services.ops.wire import filters
from services.ops.wire.facts import decoded_fact

LONGEST_ACTOR = 200
CHANGES = "changes"
SAME = ("id", "source", "actor", "plugin", "merchant", "incident", "reason")
PAIRS = (("before", "after"), ("before", "assignee"), ("from", "to"), ("from_release", "to_release"))


def _pairs() -> dict[str, tuple[str, str]]:
    """Which facts say what changed, and in which two of their fields (two empty names: in a list of changes)."""
    found: dict[str, tuple[str, str]] = {}
    for field in Event.DESCRIPTOR.oneofs_by_name["fact"].fields:
        if field.message_type is None or field.name not in FIELDS.values():
            continue
        names = field.message_type.fields_by_name
        if CHANGES in names and names[CHANGES].message_type:
            found[field.name] = ("", "")
            continue
        for pair in PAIRS:
            if all(name in names and names[name].type == names[name].TYPE_STRING for name in pair):
                found[field.name] = pair
                break
    return found


CHANGING = _pairs()


def with_changes(fact: Fact) -> Fact:
    """A fact with what its payload says of before and after; a payload nobody can read says nothing."""
    if fact.fact not in CHANGING:
        return fact
    try:
        before, after = change(Event.FromString(fact.payload))
    except DecodeError:
        return fact
    return replace(fact, before=before, after=after)


def change(event: Event) -> tuple[str, str]:
    """What was before and what is after, as an event says it; empty where it says nothing."""
    name = fact_name(event)
    if name not in CHANGING:
        return "", ""
    message, (before, after) = getattr(event, name), CHANGING[name]
    if before:
        return getattr(message, before), getattr(message, after)
    changes = sorted((one.field, one.before, one.after) for one in message.changes)
    return "; ".join(f"{f}={b}" for f, b, _ in changes), "; ".join(f"{f}={a}" for f, _, a in changes)


def contradiction(fields: Mapping[str, str]) -> str:
    """What an entry says otherwise than the payload it holds; empty when they agree."""
    try:
        event = Event.FromString(base64.b64decode(fields.get("payload", ""), validate=True))
    except (DecodeError, binascii.Error, ValueError):
        return "its payload is no event"
    before, after = change(event)
    same = {
        name: getattr(event, name) for name in ("id", "source", "actor", "plugin", "merchant", "incident", "reason")
    }
    fact = Fact(
        **same,
        time=event.time.ToDatetime(UTC),
        # A newer build than this one may have recorded it.
        fact=fact_name(event) or fields.get("fact", ""),
        cause=event.cause_id,
        traceparent="",
        payload=base64.b64decode(fields.get("payload", "")),
        before=before,
        after=after,
    )
    return comparison.contradiction(fields, fact)


def audit_entry(leaf: Leaf) -> audit_pb2.AuditEntry:
    """An entry for people and programs; what cannot be read is left out, the bytes are always there."""
    made = audit_pb2.AuditEntry(index=leaf.index, entry=leaf.entry, leaf_hash=leaf.hash)
    fields = comparison.fields_of(leaf.entry) or {}
    made.fact, made.actor, made.resource = fields.get("fact", ""), fields.get("actor", ""), fields.get("resource", "")
    made.before, made.after, made.trace_id = fields.get("before", ""), fields.get("after", ""), fields.get("trace", "")
    try:
        made.event.ParseFromString(base64.b64decode(fields.get("payload", "")))
        made.headline = headline(decoded_fact(made.event))
    except (DecodeError, ValueError, OverflowError):
        made.headline = "the payload of this entry cannot be read"
    return made


def audit_checkpoint(origin: str, signed: Checkpoint) -> audit_pb2.AuditCheckpoint:
    """A checkpoint."""
    made = audit_pb2.AuditCheckpoint(
        origin=origin, size=signed.size, root=signed.root, note=signed.note, key=signed.key
    )
    made.time.FromDatetime(signed.time)
    return made


def audit_filter(request: audit_pb2.ListAuditRequest) -> AuditFilter:
    """The filter of a request. Raises Invalid."""
    if len(request.actor) > LONGEST_ACTOR:
        raise Invalid(f"actor may have {LONGEST_ACTOR} characters", reason="BAD_ACTOR", field="actor")
    known = filters.timeline(request.plugin, request.incident, request.facts)
    start, end = filters.time(request, "start_time"), filters.time(request, "end_time")
    if start and end and end <= start:
        raise Invalid(
            "the window ends before it starts: end_time must be after start_time", reason="BAD_WINDOW", field="end_time"
        )
    return AuditFilter(request.actor, known.facts, known.plugin, known.incident, start, end)
