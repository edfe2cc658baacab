"""An entry of the audit log: everything a fact says, as one line of canonical JSON.

Rule: an entry is made from the row of the fact alone, so that anybody can make it again and compare. Every value is a
text; RFC 8785 then asks for sorted keys, no spaces and the shortest escapes, which the standard encoder writes. The
payload is the whole event in protobuf, base64, as it was told: the other fields can be read from it again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

VERSION = "1"
PLANE = "plane"


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of `bus.facts`, with what its payload says of before and after (empty where it says nothing)."""

    id: str
    time: datetime
    source: str
    fact: str
    actor: str
    plugin: str
    merchant: str
    incident: str
    reason: str
    cause: str
    traceparent: str
    payload: bytes
    before: str = ""
    after: str = ""


def fields(fact: Fact) -> dict[str, str]:
    """What the entry of a fact says: who (actor) did what (fact) to what (resource), why, and where it came from."""
    return {
        "v": VERSION,
        "id": fact.id,
        "time": timestamp(fact.time),
        "source": fact.source,
        "fact": fact.fact,
        "actor": fact.actor,
        "resource": resource(fact),
        "plugin": fact.plugin,
        "merchant": fact.merchant,
        "incident": fact.incident,
        "reason": fact.reason,
        "cause": fact.cause,
        "trace": trace(fact.traceparent),
        "before": fact.before,
        "after": fact.after,
        "payload": base64.b64encode(fact.payload).decode(),
    }


def encode(logged: Mapping[str, str]) -> bytes:
    """Canonical JSON (RFC 8785) of texts under ASCII names."""
    return json.dumps(logged, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def entry(fact: Fact) -> bytes:
    """The entry of a fact: what is hashed."""
    return encode(fields(fact))


def resource(fact: Fact) -> str:
    """What a fact is about: a plugin, else an incident, else the plane itself."""
    if fact.plugin:
        return f"plugins/{fact.plugin}"
    return f"incidents/{fact.incident}" if fact.incident else PLANE


def trace(traceparent: str) -> str:
    """The trace id in a W3C traceparent; empty when there is none."""
    return traceparent[3:35] if len(traceparent) >= 55 else ""


def timestamp(time: datetime) -> str:
    """UTC with microseconds, always of the same length."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def difference(logged: Mapping[str, str], fact: Mapping[str, str]) -> str:
    """The first field in which two tell differently, in words; empty when they agree."""
    for name in sorted({*logged, *fact}):
        if logged.get(name) != fact.get(name):
            return f"{name} was {_short(logged.get(name))} when it was logged and is {_short(fact.get(name))} now"
    return ""


def _short(text: str | None) -> str:
    if text is None:
        return "missing"
    return repr(text if len(text) <= 60 else text[:59] + "…")
