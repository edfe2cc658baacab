"""Which figures are an anomaly, how bad, and when a plugin is well again. Thresholds are data.

Rule: a rate is looked at over the newest windows that hold at least ten attempts; sums over the day. Only windows that
start no earlier than the plugin's last apply or incident close count. The first level of a rate is reached when the
rate itself exceeds it; a higher level is claimed only when the attempts seen support it (the lower quarter bound of
Wilson's interval exceeds it too), so that a few unlucky calls do not turn a case for automation into one for a person.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from services.ingest.windows import DAY, SLACK, Window

HEARTBEAT_MISSED = "heartbeat_missed"
PLUGIN_DOWN = "plugin_down"
WEBHOOK_FAIL_RATE = "webhook_fail_rate"
ERROR_SPIKE = "error_spike"
SIGNATURE_INVALID = "signature_invalid"
CONFIG_DRIFT = "config_drift"
TELEMETRY_ANOMALY = "telemetry_anomaly"

# The position of a type is its bit in a plugin's row; add at the end only.
TYPES = (
    HEARTBEAT_MISSED,
    PLUGIN_DOWN,
    WEBHOOK_FAIL_RATE,
    ERROR_SPIKE,
    SIGNATURE_INVALID,
    CONFIG_DRIFT,
    TELEMETRY_ANOMALY,
)
BIT = {name: 1 << place for place, name in enumerate(TYPES)}

MIN_ATTEMPTS = 10
BOUND = 0.75  # standard deviations below the observed rate


class Severity(IntEnum):
    """As in the protos."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Health(IntEnum):
    """As in the protos."""

    UNSPECIFIED = 0
    HEALTHY = 1
    UNHEALTHY = 2
    DOWN = 3
    STARTING = 4


@dataclass(frozen=True, slots=True)
class Levels:
    """From which figure on (exclusive) an anomaly has which severity, mildest first."""

    type: str
    over: tuple[tuple[float, Severity], ...]

    def severity(self, figure: float) -> Severity | None:
        """The severity of a figure, None below every level."""
        found = None
        for threshold, severity in self.over:
            if figure > threshold:
                found = severity
        return found

    def first(self) -> float:
        """The figure above which there is an anomaly at all."""
        return self.over[0][0]


RATE = Levels(WEBHOOK_FAIL_RATE, ((0.3, Severity.MEDIUM), (0.7, Severity.HIGH), (0.9, Severity.CRITICAL)))
ERRORS = Levels(ERROR_SPIKE, ((20, Severity.MEDIUM), (50, Severity.HIGH), (100, Severity.CRITICAL)))
SIGNATURES = Levels(SIGNATURE_INVALID, ((5, Severity.HIGH),))
DRIFT = Severity.MEDIUM
# Of how many times its usual value a figure has.
UNLIKE = Levels(TELEMETRY_ANOMALY, ((0.0, Severity.LOW), (4.0, Severity.MEDIUM)))
SHOWN = 12  # characters of a digest that people compare


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A threshold that was crossed, with its figures."""

    type: str
    severity: Severity
    summary: str
    figures: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Plain:
    """Figures as plain HTTP clients send them in place of counters; None when not sent."""

    errors: int | None = None
    rate: float | None = None


def recent(windows: Iterable[Window], since: float, at: float) -> list[Window]:
    """Of windows (newest first) those of the last day that began after `since`, all of one generation.

    What another build did says nothing of this one.
    """
    found: list[Window] = []
    for window in windows:
        if window.start < since - SLACK or window.end < at - DAY:
            break
        if found and window.generation != found[0].generation:
            break
        found.append(window)
    return found


def judge(windows: Iterable[Window], since: float, at: float, health: Health, plain: Plain) -> list[Anomaly]:
    """Every anomaly in the windows (newest first), in the health and in the plain figures.

    `since` and `at` are Unix seconds: the plugin's last apply or incident close, and now.
    """
    found: list[Anomaly] = []
    if health is Health.DOWN:
        found.append(Anomaly(PLUGIN_DOWN, Severity.HIGH, "the supervisor lives, the plugin does not", ()))
    counted = recent(windows, since, at)
    found += filter(None, (_rate(counted, plain), _errors(counted, plain), _signatures(counted)))
    return found


def well(type: str, windows: Sequence[Window], health: Health, plain: Plain) -> bool | None:  # noqa: A002 - the word of the design
    """Whether the newest window speaks for (True) or against (False) being healed of a type; None: it says nothing.

    `windows` are those since the last change, newest first. A rate is that of as many as it takes to find one: a few
    webhooks that worked are no more a proof than a few that did not.
    """
    window = windows[0]
    if type == WEBHOOK_FAIL_RATE:
        if plain.rate is not None and not window.attempts:
            return plain.rate <= RATE.first()
        counted = _counted(windows) if window.attempts else None
        return None if counted is None else counted[1] / counted[0] <= RATE.first()
    if type == ERROR_SPIKE:
        return not window.errors and (plain.errors is None or plain.errors <= ERRORS.first())
    if type == SIGNATURE_INVALID:
        return not window.signatures
    if type == PLUGIN_DOWN:
        return {Health.HEALTHY: True, Health.UNSPECIFIED: True, Health.DOWN: False}.get(health)
    # What a window counts says nothing of these.
    return None if type in (CONFIG_DRIFT, TELEMETRY_ANOMALY) else True


def drifted(expected: str, found: str) -> Anomaly:
    """A configuration (its digest) that is not the one the plugin should have."""
    summary = f"the configuration is {found[:SHOWN]}, it should be {expected[:SHOWN]}, and nobody is bringing another"
    return Anomaly(CONFIG_DRIFT, DRIFT, summary, ())


def unlike(figure: str, usual: float, present: float, summary: str) -> Anomaly:
    """A figure that stays above what is usual for the plugin."""
    times = present / usual if usual > 0.0 else math.inf
    severity = UNLIKE.severity(times) or Severity.LOW
    return Anomaly(TELEMETRY_ANOMALY, severity, summary, ((figure, present), (f"usual_{figure}", usual)))


def bits(types: Iterable[str]) -> int:
    """The types as one number."""
    return sum(BIT[name] for name in set(types))


def types(number: int) -> list[str]:
    """The types in a number."""
    return [name for name in TYPES if number & BIT[name]]


def supported(failures: int, attempts: int) -> float:
    """The rate that so many failures of so many attempts support: the lower bound of Wilson's interval."""
    rate, square = failures / attempts, BOUND * BOUND
    centre = rate + square / (2 * attempts)
    spread = BOUND * math.sqrt(rate * (1 - rate) / attempts + square / (4 * attempts * attempts))
    return (centre - spread) / (1 + square / attempts)


def _at(severity: Severity | None, type_: str, summary: str, figures: tuple[tuple[str, float], ...]) -> Anomaly | None:
    return None if severity is None else Anomaly(type_, severity, summary, figures)


def _counted(windows: Iterable[Window]) -> tuple[int, int] | None:
    """Attempts and failures of as many windows as hold enough attempts for a rate; None when all hold too few."""
    attempts = failures = 0
    for window in windows:
        attempts += window.attempts
        failures += window.failures
        if attempts >= MIN_ATTEMPTS:
            return attempts, failures
    return None


def _rate(windows: Sequence[Window], plain: Plain) -> Anomaly | None:
    if plain.rate is not None:
        return _at(
            RATE.severity(plain.rate),
            WEBHOOK_FAIL_RATE,
            f"webhook_fail_rate {plain.rate:.2f} > {RATE.first():.2f} as the plugin reports it",
            (("webhook_fail_rate", plain.rate),),
        )
    counted = _counted(windows)
    if counted is None:
        return None
    attempts, failures = counted
    rate = failures / attempts
    if rate <= RATE.first():
        return None
    severity = max(RATE.over[0][1], RATE.severity(supported(failures, attempts)) or RATE.over[0][1])
    return Anomaly(
        WEBHOOK_FAIL_RATE,
        severity,
        f"webhook_fail_rate {rate:.2f} > {RATE.first():.2f} over {attempts} attempts",
        (("webhook_fail_rate", rate), ("webhook_attempts", attempts), ("webhook_failures", failures)),
    )


def _errors(windows: Sequence[Window], plain: Plain) -> Anomaly | None:
    errors = plain.errors if plain.errors is not None else sum(window.errors for window in windows)
    return _at(
        ERRORS.severity(errors),
        ERROR_SPIKE,
        f"{errors} errors > {ERRORS.first():.0f} in 24 hours or since the last change",
        (("errors_last_24h", errors),),
    )


def _signatures(windows: Sequence[Window]) -> Anomaly | None:
    rejected = sum(window.signatures for window in windows)
    return _at(
        SIGNATURES.severity(rejected),
        SIGNATURE_INVALID,
        f"{rejected} signatures rejected by the plugin's peers > {SIGNATURES.first():.0f}",
        (("signature_failures", rejected),),
    )
