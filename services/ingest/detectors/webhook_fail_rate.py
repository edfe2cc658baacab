"""webhook_fail_rate: too many of the newest webhooks failed.

Rule: the rate is looked at over the newest windows that hold at least ten attempts. The first level is reached when the
rate itself exceeds it; a higher level is claimed only when the attempts seen support it (the lower quarter bound of
Wilson's interval exceeds it too), so that a few unlucky calls do not turn a case for automation into one for a person.
A few webhooks that worked are no more a proof of health than a few that did not are one of failure. A rate that a
client reports without attempts beside it is evidence only when several reports in a row exceed the level
(`rate_reports`), and as bad as the best of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from services.ingest.detectors.detector import Detector, Levels, eventful
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation
from services.ingest.windows import Window

TYPE = "webhook_fail_rate"
LEVELS = Levels(((0.3, Severity.MEDIUM), (0.7, Severity.HIGH), (0.9, Severity.CRITICAL)))
MIN_ATTEMPTS = 10
BOUND = 0.75  # standard deviations below the observed rate


def supported(failures: int, attempts: int) -> float:
    """The rate that so many failures of so many attempts support: the lower bound of Wilson's interval."""
    rate, square = failures / attempts, BOUND * BOUND
    centre = rate + square / (2 * attempts)
    spread = BOUND * math.sqrt(rate * (1 - rate) / attempts + square / (4 * attempts * attempts))
    return (centre - spread) / (1 + square / attempts)


def _judge(seen: Observation) -> Finding | None:
    counted = _counted(seen.recent)
    if counted is None:
        lowest = seen.lowest_rate
        if lowest is None:
            return None
        summary = f"webhook_fail_rate {lowest:.2f} > {LEVELS.first:.2f}, as the plugin reported several times in a row"
        return LEVELS.finding(TYPE, "webhook_fail_rate", lowest, summary)
    attempts, failures = counted
    rate = failures / attempts
    if rate <= LEVELS.first:
        return None
    mildest = LEVELS.over[0][1]
    return Finding(
        TYPE,
        max(mildest, LEVELS.severity(supported(failures, attempts)) or mildest),
        f"webhook_fail_rate {rate:.2f} > {LEVELS.first:.2f} over {attempts} attempts",
        (("webhook_fail_rate", rate), ("webhook_attempts", attempts), ("webhook_failures", failures)),
    )


def _well(seen: Observation) -> bool | None:
    reported, windows = seen.client_figures.webhook_fail_rate, seen.recent or [seen.window]
    if reported is not None and not windows[0].attempts:
        return reported <= LEVELS.first
    counted = _counted(windows) if windows[0].attempts else None
    return None if counted is None else counted[1] / counted[0] <= LEVELS.first


def _counted(windows: Iterable[Window]) -> tuple[int, int] | None:
    """Attempts and failures of as many windows as hold enough attempts for a rate; None when all hold too few."""
    attempts = failures = 0
    for window in windows:
        attempts += window.attempts
        failures += window.failures
        if attempts >= MIN_ATTEMPTS:
            return attempts, failures
    return None


DETECTOR = Detector(TYPE, 4, eventful, _judge, _well)
