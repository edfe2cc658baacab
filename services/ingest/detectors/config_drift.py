"""config_drift: the plugin runs another configuration than it should, and no command or trial may be the reason."""

from __future__ import annotations

from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "config_drift"
BIT = 32
SHOWN = 12  # characters of a digest that people compare


def _drifts(seen: Observation) -> bool:
    found, expected = seen.beat.config_digest, seen.state.expected_config_digest
    return found != expected and bool(found and expected) and not seen.state.commands_pending


def _due(seen: Observation) -> bool:
    return bool(seen.state.open_types & BIT) or _drifts(seen)


def _judge(seen: Observation) -> Finding | None:
    if not _drifts(seen):
        return None
    found, expected = seen.beat.config_digest[:SHOWN], seen.state.expected_config_digest[:SHOWN]
    summary = f"the configuration is {found}, it should be {expected}, and nobody is bringing another"
    return Finding(TYPE, Severity.MEDIUM, summary)


def _well(seen: Observation) -> bool | None:
    return True if seen.beat.config_digest and not seen.state.commands_pending else None


DETECTOR = Detector(TYPE, BIT, _due, _judge, _well)
