"""Silence blames a plugin only when the plane was listening."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.liveness import GAP, SET_BACK, Silence, Uptime, is_away_too_long, is_missed, listening_since

NOW = 1_000_000.0
SETTINGS = {"silence": 90.0, "poll": 120.0}


def quiet(beat: float, *, polling: bool = False, away: bool = False, back_by: float = 0.0) -> Silence:
    return Silence("p", beat, polling, away, back_by)


def test_a_plane_that_was_down_blames_nobody() -> None:
    since = listening_since([Uptime(NOW - 20, NOW)], NOW)
    assert since == NOW - 20
    assert not is_missed(quiet(NOW - 5000), since, NOW, **SETTINGS)
    assert is_missed(quiet(NOW - 5000), NOW - 91, NOW, **SETTINGS)


def test_one_replica_after_another_listens_without_a_gap() -> None:
    uptimes = [Uptime(NOW - 50, NOW), Uptime(NOW - 400, NOW - 55), Uptime(NOW - 9000, NOW - 600)]
    assert listening_since(uptimes, NOW) == NOW - 400


def test_nobody_listens_when_no_replica_noted_it_lately() -> None:
    assert listening_since([Uptime(NOW - 500, NOW - GAP - 1)], NOW) is None
    assert listening_since([], NOW) is None


@pytest.mark.parametrize(
    ("age", "polling", "blamed"), [(89, False, False), (91, False, True), (91, True, False), (301, True, True)]
)
def test_who_polls_may_be_silent_for_longer(age: float, polling: bool, blamed: bool) -> None:
    assert is_missed(quiet(NOW - age, polling=polling), 0.0, NOW, **SETTINGS) is blamed


def test_who_said_goodbye_is_blamed_only_after_the_time_it_named() -> None:
    assert not is_missed(quiet(NOW - 5000, away=True), 0.0, NOW, **SETTINGS)
    assert not is_missed(quiet(NOW - 5000, away=True, back_by=NOW - 80), 0.0, NOW, **SETTINGS)
    assert is_missed(quiet(NOW - 5000, away=True, back_by=NOW - 100), 0.0, NOW, **SETTINGS)


@pytest.mark.parametrize(("age", "missed"), [(600, False), (601, True)])
def test_who_named_no_time_is_missed_after_a_bounded_one(age: float, missed: bool) -> None:
    assert is_away_too_long(quiet(NOW - age, away=True), 0.0, NOW, away=600) is missed


def test_only_who_left_without_a_time_is_away_too_long() -> None:
    assert not is_away_too_long(quiet(NOW - 5000), 0.0, NOW, away=600)
    assert not is_away_too_long(quiet(NOW - 5000, away=True, back_by=NOW - 4000), 0.0, NOW, away=600)


def test_an_absence_counts_from_when_the_plane_listens() -> None:
    assert not is_away_too_long(quiet(NOW - 5000, away=True), NOW - 600, NOW, away=600)
    assert is_away_too_long(quiet(NOW - 5000, away=True), NOW - 601, NOW, away=600)


@pytest.mark.parametrize(("ahead", "blamed"), [(SET_BACK, False), (SET_BACK + 1, True)])
def test_a_beat_from_before_the_clock_was_set_back_hides_no_death(ahead: float, blamed: bool) -> None:
    assert is_missed(quiet(NOW + ahead), NOW - 91, NOW, **SETTINGS) is blamed
    assert is_away_too_long(quiet(NOW + ahead, away=True), NOW - 601, NOW, away=600) is blamed


def test_uptimes_from_a_time_still_to_come_say_nothing() -> None:
    assert listening_since([Uptime(NOW + 100, NOW + SET_BACK + 1)], NOW) is None
    assert listening_since([Uptime(NOW - 100, NOW + SET_BACK)], NOW) == NOW - 100


intervals = st.lists(
    st.tuples(st.floats(0, 10_000), st.floats(0, 10_000)).map(lambda pair: Uptime(NOW - max(pair), NOW - min(pair))),
    max_size=6,
)


@given(intervals)
def test_no_time_since_then_was_farther_than_the_gap_from_an_uptime(uptimes: list[Uptime]) -> None:
    since = listening_since(uptimes, NOW)
    if since is None:
        assert all(uptime.last_seen_time < NOW - GAP for uptime in uptimes)
        return
    time = since
    while time < NOW:
        assert any(h.start_time <= time <= h.last_seen_time + GAP + 1e-6 for h in uptimes)
        time += 7.0
