"""telemetry_anomaly: a figure stays above what is usual for the plugin, though no threshold knows it (`anomaly`)."""

from __future__ import annotations

import math

from services.ingest.anomaly import schedule
from services.ingest.detectors.detector import Detector, Levels
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "telemetry_anomaly"
BIT = 64
# Of how many times its usual value a figure has.
LEVELS = Levels(((0.0, Severity.LOW), (4.0, Severity.MEDIUM)))


def _due(seen: Observation) -> bool:
    return schedule.due(seen, suspected=bool(seen.state.open_types & BIT))


def _judge(seen: Observation) -> Finding | None:
    shift = schedule.sample(seen)
    if shift is None:
        return None
    times = shift.present / shift.usual if shift.usual > 0.0 else math.inf
    figures = ((shift.figure, shift.present), (f"usual_{shift.figure}", shift.usual))
    return Finding(TYPE, LEVELS.severity(times) or Severity.LOW, shift.reason, figures)


DETECTOR = Detector(TYPE, BIT, _due, _judge, well=lambda seen: seen.state.like_itself, from_bursts=True)
