"""A fact decoded from its protobuf, as headlines, projections, stories and notifications read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DecodedFact:
    """Its envelope, and its fields in plain Python: enums as lower-case words, durations in seconds, datetimes.

    `label` is what people call the plugin it is about.
    """

    id: str
    time: datetime
    name: str
    actor: str
    reason: str
    label: str
    plugin: str
    merchant: str
    incident: str
    fields: Mapping[str, Any]

    def text(self, field: str, default: str = "?") -> str:
        """A field as text; `default` when it is empty."""
        value = self.fields.get(field)
        return default if value in (None, "", 0) else str(value)

    def number(self, field: str) -> float:
        """A field as a number; 0 when it is empty."""
        return float(self.fields.get(field) or 0)

    def message(self, field: str) -> Mapping[str, Any]:
        """A field that is a message; empty when it is not set."""
        return self.fields.get(field) or {}

    def with_reason(self, line: str) -> str:
        """The line, followed by the fact's reason where it has one."""
        return f"{line} · {self.reason}" if self.reason else line

    @property
    def attempt(self) -> str:
        """The id of the attempt it is about; empty when it is about none."""
        if self.name.startswith("approval_"):
            collection, _, name = self.text("subject", "").partition("/")
            return name if collection == "attempts" else ""
        return self.text("attempt", "")


def display_name(label: str, plugin: str) -> str:
    """What people call a plugin; the end of its id, the part that differs, for one without a label."""
    return label or (f"plugin …{plugin[-8:]}" if plugin else "the plane")
