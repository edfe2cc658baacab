"""Protobuf decoded: bytes → messages → facts in plain Python."""

from __future__ import annotations

from datetime import UTC
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common.errors import Invalid
from libs.common.facts import fact_name
from prunella.v1.events_pb2 import Event
from services.ops.decoded_fact import DecodedFact, display_name

M = TypeVar("M", bound=Message)


def parsed(kind: type[M], data: bytes) -> M:
    """A message from its bytes. Raises Invalid."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Invalid(f"the body is no {kind.DESCRIPTOR.name} in protobuf", reason="MALFORMED", field="body") from error


def decoded_fact(event: Event, label: str = "") -> DecodedFact:
    """A fact in plain Python; a plugin without a known label is called by the end of its id, the part that differs."""
    name = fact_name(event)
    fields = plain(getattr(event, name)) if name else {}
    return DecodedFact(
        id=event.id,
        time=event.time.ToDatetime(UTC),
        name=name or "unknown",
        actor=event.actor,
        reason=event.reason,
        label=fields.get("label") or display_name(label, event.plugin),
        plugin=event.plugin,
        merchant=event.merchant,
        incident=event.incident,
        fields=fields,
    )


def plain(message: Message) -> dict[str, Any]:
    """The set fields of a message: enums as lower-case words, durations in seconds, times as datetimes."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        if hasattr(value, "items"):
            return dict(value)
        return [_one(field, item) for item in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Duration):
        return value.ToTimedelta().total_seconds()
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC)
    if isinstance(value, Message):
        return plain(value)
    return _word(field.enum_type, value) if field.enum_type else value


def _word(enum: EnumDescriptor, number: int) -> str:
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name).lstrip("_")
    return value.name.removeprefix(f"{prefix}_").lower()
