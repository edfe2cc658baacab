"""heartbeat_missed: a plugin is silent. Time finds it (`liveness` and its sweep), no beat does; any beat ends it."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity

TYPE = "heartbeat_missed"
BIT = 1


def silence(seconds: float) -> Finding:
    """The finding about a plugin without a beat for so long."""
    return Finding(TYPE, Severity.CRITICAL, f"no heartbeat for {seconds:.0f} s", (("silence_seconds", seconds),))


DETECTOR = Detector(
    TYPE,
    BIT,
    due=lambda seen: bool(seen.state.open_types & BIT),
    judge=lambda _seen: None,
    well=lambda _seen: True,
)
