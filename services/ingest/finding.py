"""What a detector found wrong with a plugin."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """As in the protos."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """An anomaly of a type: how bad it is, a sentence about it, and the figures behind it."""

    type: str
    severity: Severity
    summary: str
    figures: tuple[tuple[str, float], ...] = ()
