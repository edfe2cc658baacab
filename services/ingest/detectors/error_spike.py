"""error_spike: too many errors within a day, or since the last change."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector, Levels, eventful
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "error_spike"
LEVELS = Levels(((20, Severity.MEDIUM), (50, Severity.HIGH), (100, Severity.CRITICAL)))


def _judge(seen: Observation) -> Finding | None:
    reported = seen.client_figures.errors_last_24h
    errors = reported if reported is not None else sum(window.errors for window in seen.recent)
    summary = f"{errors} errors > {LEVELS.first:.0f} in 24 hours or since the last change"
    return LEVELS.finding(TYPE, "errors_last_24h", errors, summary)


def _well(seen: Observation) -> bool | None:
    reported = seen.client_figures.errors_last_24h
    return not seen.window.errors and (reported is None or reported <= LEVELS.first)


DETECTOR = Detector(TYPE, 8, eventful, _judge, _well)
