"""Facts as what they leave behind on the rows that people see."""

from __future__ import annotations

from datetime import UTC

from prunella.v1.events_pb2 import Event
from services.ops.marks import About, Mark, marks
from services.ops.wire.facts import told


def left_by(event: Event) -> list[Mark]:
    """Everything one fact leaves behind."""
    at = event.time.ToDatetime(UTC)
    return list(marks(told(event), About(event.id, at, event.incident, event.plugin, event.merchant)))
