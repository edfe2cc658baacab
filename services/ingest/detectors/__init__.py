"""The second half of a beat's way: every detector that is due judges the observation.

Rule: a detector is a file here and an entry in DETECTORS. Findings come in the order of the list.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.ingest.detectors import (
    agent_degraded,
    config_drift,
    error_spike,
    heartbeat_missed,
    plugin_away,
    plugin_down,
    signature_invalid,
    telemetry_anomaly,
    version_incompatibility,
    webhook_fail_rate,
)
from services.ingest.observation import Observation

DETECTORS = (
    heartbeat_missed.DETECTOR, plugin_down.DETECTOR, webhook_fail_rate.DETECTOR, error_spike.DETECTOR,
    signature_invalid.DETECTOR, config_drift.DETECTOR, telemetry_anomaly.DETECTOR,
    version_incompatibility.DETECTOR, plugin_away.DETECTOR, agent_degraded.DETECTOR,
)  # fmt: skip
BITS = {detector.type: detector.bit for detector in DETECTORS}

# Seconds. Beats that come closer were saved while the plane was away (or report a change): they speak of the past, and
# a plugin that was well then need not be well now. What they accuse of still counts.
SHORTEST_WELL = 0.4


def detect(seen: Observation) -> None:
    """Notes in the observation what the detectors find, and of which open incidents it shows the plugin well or not."""
    open_types = seen.state.open_types
    for detector in DETECTORS:
        if not detector.due(seen):
            continue
        finding = detector.judge(seen)
        if finding is not None:
            seen.findings.append(finding)
        elif open_types & detector.bit:
            well = detector.well(seen)
            in_burst = seen.window.duration < SHORTEST_WELL and not detector.from_bursts
            if well is not None and not (well and in_burst):
                seen.wellness[detector.type] = well


def bits(types: Iterable[str]) -> int:
    """The types as one number."""
    return sum(BITS[name] for name in set(types))
