"""plugin_down: the supervisor reports that the plugin does not run."""

from __future__ import annotations

from services.ingest.beat import Health
from services.ingest.detectors.detector import Detector, eventful
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "plugin_down"


def _judge(seen: Observation) -> Finding | None:
    if seen.state.health is not Health.DOWN:
        return None
    return Finding(TYPE, Severity.HIGH, "the supervisor lives, the plugin does not")


def _well(seen: Observation) -> bool | None:
    return True if seen.state.health in (Health.HEALTHY, Health.UNSPECIFIED) else None


DETECTOR = Detector(TYPE, 2, eventful, _judge, _well)
