"""signature_invalid: the plugin's peers reject its signatures."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector, Levels, eventful
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "signature_invalid"
LEVELS = Levels(((5, Severity.HIGH),))


def _judge(seen: Observation) -> Finding | None:
    rejected = sum(window.signature_failures for window in seen.recent)
    summary = f"{rejected} signatures rejected by the plugin's peers > {LEVELS.first:.0f}"
    return LEVELS.finding(TYPE, "signature_failures", rejected, summary)


DETECTOR = Detector(TYPE, 16, eventful, _judge, well=lambda seen: not seen.window.signature_failures)
