"""The figures of a window: what they are made of, what they should reach, and when there is no data.

Rule: a figure says how many cases it is made of, and without a case it has no value: no zero that looks like a result,
no NaN. The targets are those of the founding document (seed 001): autopatch success above 95 %, rollback below 2 %,
time to detect below 2 minutes, time to repair below 10 minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from libs.common.errors import Invalid
from services.ops.attempt_states import TRIED

DEFAULT: Final = timedelta(days=7)
LONGEST: Final = timedelta(days=400)
SUCCESS_TARGET: Final = 0.95
ROLLBACK_TARGET: Final = 0.02
DETECT_TARGET: Final = 120.0  # seconds
REPAIR_TARGET: Final = 600.0  # seconds
BINS: Final = 10
# Points of a chart; a day's worth of hours, or about a quarter of days.
STEPS: Final = (
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
    timedelta(days=7),
)
MOST_POINTS: Final = 100


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()

    @property
    def step(self) -> timedelta:
        """How far the points of its charts are apart: the finest step of which at most MOST_POINTS fit."""
        return next((step for step in STEPS if self.seconds <= step.total_seconds() * MOST_POINTS), STEPS[-1])


@dataclass(frozen=True, slots=True)
class Ratio:
    """So many of so many; `exceed`: whether the target is to be exceeded (else undercut)."""

    numerator: int
    denominator: int
    target: float | None = None
    exceed: bool = True

    @property
    def value(self) -> float | None:
        """The ratio, None without a case."""
        return self.numerator / self.denominator if self.denominator > 0 else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a value or a target."""
        value = self.value
        if value is None or self.target is None:
            return None
        return value > self.target if self.exceed else value < self.target


@dataclass(frozen=True, slots=True)
class Durations:
    """A distribution of durations, in seconds; without a case all of it is None."""

    cases: int
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the mean stays below the target; None without a value or a target."""
        return None if self.mean is None or self.target is None else self.mean < self.target


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Decisions whose predicted confidence lies in one decile, and what became of those that were tried."""

    lower: float
    upper: float
    decisions: int = 0
    predicted: float | None = None
    tried: int = 0
    observed: float | None = None


def window(start: datetime | None, end: datetime | None, now: datetime) -> Window:
    """The window asked for: without an end until now, without a start the seven days before its end. Raises Invalid."""
    until = end or now
    since = start or until - DEFAULT
    if until <= since:
        field, rule = ("end_time", "after start_time") if end else ("start_time", "before now")
        raise Invalid(
            f"{field} must be {rule}: the window from {since.isoformat()} to {until.isoformat()} ends before it starts",
            reason="WINDOW_ENDS_BEFORE_IT_STARTS",
            field=field,
        )
    if until - since > LONGEST:
        raise Invalid(
            f"start_time must be at most {LONGEST.days} days before end_time, it was {(until - since).days} days; "
            "ask for a shorter window",
            reason="WINDOW_TOO_LONG",
            field="start_time",
        )
    return Window(since, until)


def decile(confidence: float) -> int:
    """Which of the ten bins a confidence belongs to; 1.0 belongs to the last."""
    return min(BINS - 1, max(0, math.floor(confidence * BINS)))


def calibration_bins(rows: Sequence[tuple[int, int, float | None, int, int]]) -> list[CalibrationBin]:
    """All ten bins from rows of (decile, decisions, mean predicted, tried, succeeded); empty ones have no values."""
    found = {row[0]: row[1:] for row in rows}
    bins = []
    for place in range(BINS):
        decisions, predicted, tried, succeeded = found.get(place, (0, None, 0, 0))
        observed = succeeded / tried if tried else None
        bins.append(CalibrationBin(place / BINS, (place + 1) / BINS, decisions, predicted, tried, observed))
    return bins


def calibration_error(found: Sequence[CalibrationBin]) -> float | None:
    """Expected calibration error: the mean gap between predicted and observed, weighted by tries (Naeini et al. 2015).

    None when nothing was tried.
    """
    tried = sum(one.tried for one in found)
    if not tried:
        return None
    gaps = (
        abs(one.predicted - one.observed) * one.tried
        for one in found
        if one.predicted is not None and one.observed is not None
    )
    return sum(gaps) / tried


def success(outcomes: Mapping[str, int]) -> Ratio:
    """Attempts that healed, of those that tried something to its end."""
    return Ratio(outcomes.get("success", 0), _tried(outcomes), SUCCESS_TARGET)


def rollback(outcomes: Mapping[str, int]) -> Ratio:
    """Attempts that were taken back, or had to be, of those that tried something to its end."""
    back = outcomes.get("rolled_back", 0) + outcomes.get("rollback_failed", 0)
    return Ratio(back, _tried(outcomes), ROLLBACK_TARGET, exceed=False)


def _tried(outcomes: Mapping[str, int]) -> int:
    return sum(outcomes.get(state, 0) for state in TRIED)
