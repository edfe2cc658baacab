"""Figures have a value only where there are cases; windows are what they say."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.ops import kpis

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def test_without_dates_the_window_is_the_last_seven_days() -> None:
    assert kpis.window(None, None, NOW) == kpis.Window(NOW - 7 * DAY, NOW)
    assert kpis.window(None, NOW - DAY, NOW) == kpis.Window(NOW - 8 * DAY, NOW - DAY)


@pytest.mark.parametrize(
    ("start", "end", "field", "reason"),
    [
        (NOW, NOW - DAY, "end_time", "WINDOW_ENDS_BEFORE_IT_STARTS"),
        (NOW, NOW, "end_time", "WINDOW_ENDS_BEFORE_IT_STARTS"),
        (NOW + DAY, None, "start_time", "WINDOW_ENDS_BEFORE_IT_STARTS"),
        (NOW - 401 * DAY, NOW, "start_time", "WINDOW_TOO_LONG"),
    ],
)
def test_a_bad_window_names_its_field(start: datetime, end: datetime | None, field: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        kpis.window(start, end, NOW)
    assert (refused.value.field, refused.value.reason) == (field, reason)


def test_nothing_happened_means_no_value_and_no_verdict() -> None:
    for share in (kpis.success({}), kpis.rollback({}), kpis.success({"refused": 3, "cancelled": 2})):
        assert (share.value, share.met) == (None, None)
    assert kpis.Durations(0, target=120.0).met is None
    assert kpis.calibration_error(kpis.calibration_bins([])) is None


def test_rates_count_what_was_tried_to_its_end() -> None:
    outcomes = {"success": 96, "failed": 2, "rolled_back": 1, "rollback_failed": 1, "refused": 50, "cancelled": 9}
    assert (kpis.success(outcomes).value, kpis.success(outcomes).met) == (0.96, True)
    assert (kpis.rollback(outcomes).value, kpis.rollback(outcomes).met) == (0.02, False)


@given(st.floats(0.0, 1.0))
def test_every_confidence_has_its_bin(confidence: float) -> None:
    found = kpis.calibration_bins([(kpis.decile(confidence), 1, confidence, 1, 1)])
    (one,) = [one for one in found if one.decisions]
    assert one.lower <= confidence + 1e-9
    assert confidence <= one.upper


def test_deciles_begin_where_they_say() -> None:
    assert [kpis.decile(value) for value in (0.0, 0.1, 0.29, 0.3, 0.7, 0.87, 0.9, 1.0)] == [0, 1, 2, 3, 7, 8, 9, 9]


def test_calibration_is_the_mean_gap_weighted_by_tries() -> None:
    found = kpis.calibration_bins([(8, 4, 0.85, 4, 2), (5, 9, 0.55, 0, 0), (2, 1, 0.25, 1, 1)])
    assert math.isclose(kpis.calibration_error(found) or 0.0, (0.35 * 4 + 0.75) / 5)
    assert (found[5].decisions, found[5].observed) == (9, None)


@given(st.timedeltas(timedelta(seconds=1), kpis.LONGEST))
def test_a_chart_never_has_too_many_points(length: timedelta) -> None:
    window = kpis.Window(NOW - length, NOW)
    assert window.seconds / window.step.total_seconds() <= kpis.MOST_POINTS
