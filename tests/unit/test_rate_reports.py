"""Bare rates are evidence only several in a row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ingest import rate_reports


def reported(*rates: float, since: float = -1.0, count: int = 3) -> bytes:
    packed = b""
    for at, rate in enumerate(rates):
        packed = rate_reports.append(packed, float(at), rate, since, count, again=False)
    return packed


def test_too_few_say_nothing() -> None:
    assert rate_reports.lowest(b"", 1) is None
    assert rate_reports.lowest(reported(1.0, 1.0), 3) is None


def test_the_lowest_of_the_newest_is_what_all_of_them_support() -> None:
    assert rate_reports.lowest(reported(0.9, 0.4, 0.8), 3) == 0.4
    assert rate_reports.lowest(reported(0.1, 0.9, 0.4, 0.8), 3) == 0.4
    assert rate_reports.lowest(reported(0.9, 0.4, 0.8), 1) == 0.8


def test_no_more_is_kept_than_is_asked_for() -> None:
    assert len(reported(*[0.5] * 50)) == 3 * rate_reports.LAYOUT.size


def test_what_came_again_takes_the_place_of_what_it_repeats() -> None:
    once = reported(0.9, 0.8)
    again = rate_reports.append(once, 5.0, 0.8, -1.0, 3, again=True)
    assert rate_reports.lowest(again, 3) is None
    assert rate_reports.lowest(again, 2) == 0.8
    assert rate_reports.append(b"", 5.0, 0.8, -1.0, 3, again=True) == rate_reports.LAYOUT.pack(5.0, 0.8)


def test_what_was_reported_at_or_before_the_last_change_is_forgotten() -> None:
    packed = rate_reports.append(reported(0.9, 0.8), 2.0, 0.7, 0.0, 3, again=False)
    assert rate_reports.lowest(packed, 3) is None
    assert rate_reports.lowest(packed, 2) == 0.7


@given(st.lists(st.floats(0, 1), max_size=9), st.integers(1, 5))
def test_it_is_the_least_of_the_last_ones(rates: list[float], count: int) -> None:
    expected = min(rates[-count:]) if len(rates) >= count else None
    assert rate_reports.lowest(reported(*rates, count=count), count) == expected
