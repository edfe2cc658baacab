"""plugin_away: a plugin said goodbye, named no time, and has not come back. Time finds it (`liveness`)."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity

TYPE = "plugin_away"
BIT = 256


def absence(seconds: float) -> Finding:
    """The finding about a plugin that left so long ago."""
    summary = (
        f"it was stopped in order {seconds:.0f} s ago and has not come back; "
        "start it again, or retire it if it is gone for good"
    )
    return Finding(TYPE, Severity.LOW, summary, (("away_seconds", seconds),))


DETECTOR = Detector(
    TYPE,
    BIT,
    due=lambda seen: bool(seen.state.open_types & BIT),
    judge=lambda _seen: None,
    well=lambda _seen: True,
)
