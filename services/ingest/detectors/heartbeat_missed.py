"""heartbeat_missed: a plugin is silent. Time finds it (`liveness` and its sweep), no beat does; any beat ends it."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "heartbeat_missed"
BIT = 1


def silence(seconds: float) -> Finding:
    """The finding about a plugin without a beat for so long."""
    return Finding(TYPE, Severity.CRITICAL, f"no heartbeat for {seconds:.0f} s", (("silence_seconds", seconds),))


def _due(seen: Observation) -> bool:
    return bool(seen.state.open_types & BIT)


def _judge(_seen: Observation) -> Finding | None:
    return None


def _well(_seen: Observation) -> bool | None:
    return True


DETECTOR = Detector(TYPE, BIT, _due, _judge, _well)
