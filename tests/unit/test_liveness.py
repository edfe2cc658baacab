"""Silence blames a plugin only when the plane was listening."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.liveness import GAP, Hearing, Quiet, hearing_since, silent

NOW = 1_000_000.0
SETTINGS = {"silence": 90.0, "poll": 120.0}


def quiet(heard: float, *, polls: bool = False, away: bool = False, back_by: float = 0.0) -> Quiet:
    return Quiet("p", heard, polls, away, back_by)


def test_a_plane_that_was_down_blames_nobody() -> None:
    since = hearing_since([Hearing(NOW - 20, NOW)], NOW)
    assert since == NOW - 20
    assert not silent(quiet(NOW - 5000), since, NOW, **SETTINGS)
    assert silent(quiet(NOW - 5000), NOW - 91, NOW, **SETTINGS)


def test_one_replica_after_another_is_hearing_without_a_gap() -> None:
    hearings = [Hearing(NOW - 50, NOW), Hearing(NOW - 400, NOW - 55), Hearing(NOW - 9000, NOW - 600)]
    assert hearing_since(hearings, NOW) == NOW - 400


def test_nobody_hears_when_no_replica_noted_it_lately() -> None:
    assert hearing_since([Hearing(NOW - 500, NOW - GAP - 1)], NOW) is None
    assert hearing_since([], NOW) is None


@pytest.mark.parametrize(
    ("age", "polls", "blamed"), [(89, False, False), (91, False, True), (91, True, False), (301, True, True)]
)
def test_who_polls_may_be_silent_for_longer(age: float, polls: bool, blamed: bool) -> None:
    assert silent(quiet(NOW - age, polls=polls), 0.0, NOW, **SETTINGS) is blamed


def test_who_said_goodbye_is_blamed_only_after_the_time_it_named() -> None:
    assert not silent(quiet(NOW - 5000, away=True), 0.0, NOW, **SETTINGS)
    assert not silent(quiet(NOW - 5000, away=True, back_by=NOW - 80), 0.0, NOW, **SETTINGS)
    assert silent(quiet(NOW - 5000, away=True, back_by=NOW - 100), 0.0, NOW, **SETTINGS)


intervals = st.lists(
    st.tuples(st.floats(0, 10_000), st.floats(0, 10_000)).map(lambda pair: Hearing(NOW - max(pair), NOW - min(pair))),
    max_size=6,
)


@given(intervals)
def test_no_moment_since_then_was_farther_than_the_gap_from_a_hearing(hearings: list[Hearing]) -> None:
    since = hearing_since(hearings, NOW)
    if since is None:
        assert all(hearing.last < NOW - GAP for hearing in hearings)
        return
    moment = since
    while moment < NOW:
        assert any(h.since <= moment <= h.last + GAP + 1e-6 for h in hearings)
        moment += 7.0
