"""Evidence that may be looked at as often as one likes: never expected to grow while the null is true."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.patcher import sequential
from services.patcher.sequential import Counts

ALPHA = 0.01
ENOUGH = -math.log(ALPHA)


@given(st.floats(0.001, 0.9), st.floats(0.0, 1.0))
def test_a_bet_on_a_share_loses_on_average_while_the_null_is_true(null: float, part: float) -> None:
    truth = null * part
    for far, _ in sequential.BETWEEN:
        bet = null + (1.0 - null) * far
        assert truth * bet / null + (1 - truth) * (1 - bet) / (1 - null) <= 1.0 + 1e-9


def test_every_bet_stakes_the_whole_capital_and_no_more() -> None:
    for bets in (sequential.BETS, sequential.BETWEEN, sequential.MORE, sequential.LESS):
        assert sum(share for _, share in bets) == pytest.approx(1.0)


def expectation(expected: float, bets: sequential.Bets) -> float:
    """What the capital is worth on average when as many come as the null says at the most (or least), exactly."""
    total, chance = 0.0, math.exp(-expected)
    for events in range(400):
        total += chance * math.exp(sequential._counted(events, expected, bets))
        chance *= expected / (events + 1)
    return total


@pytest.mark.parametrize("expected", [0.5, 1.0, 3.0, 8.0])
def test_a_bet_on_a_count_is_fair_at_the_null(expected: float) -> None:
    assert expectation(expected, sequential.LESS) == pytest.approx(1.0, abs=1e-6)
    assert expectation(expected, ((2.0, 0.25), (4.0, 0.75))) == pytest.approx(1.0, abs=1e-6)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.9))
def test_more_failures_are_more_evidence_that_a_share_is_above(failures: int, good: int, null: float) -> None:
    trials = failures + good
    more = sequential.share_above(failures + 1, trials + 1, null)
    assert more >= sequential.share_above(failures, trials + 1, null) - 1e-9


@given(st.integers(0, 300), st.floats(0.1, 100))
def test_more_events_are_more_evidence_of_more_and_less_of_fewer(events: int, expected: float) -> None:
    assert sequential.count_above(events + 1, expected) > sequential.count_above(events, expected)
    assert sequential.count_below(events + 1, expected) < sequential.count_below(events, expected)


def test_nothing_seen_is_no_evidence() -> None:
    assert sequential.share_above(0, 0, 0.1) == 0.0
    assert sequential.share_below(0, 0, 0.3) == 0.0
    assert sequential.count_above(0, 0.0) == pytest.approx(0.0)
    assert sequential.log_evidence(0, 0, 0.02) == 0.0


def test_no_bet_lies_above_a_null_of_nearly_all() -> None:
    assert sequential.log_evidence(5, 5, 0.95) == -math.inf


@pytest.mark.parametrize(("failures", "trials", "null", "found"), [
    (3, 3, 0.1, True), (2, 2, 0.1, False), (6, 10, 0.1, True), (2, 10, 0.1, False), (10, 100, 0.1, False),
    (30, 100, 0.1, True),
])  # fmt: skip
def test_how_much_it_takes_to_say_that_too_many_fail(failures: int, trials: int, null: float, found: bool) -> None:
    assert (sequential.share_above(failures, trials, null) >= ENOUGH) is found


@pytest.mark.parametrize(("trials", "found"), [(10, False), (18, False), (19, True), (40, True)])
def test_how_many_that_work_it_takes_to_say_that_webhooks_work(trials: int, found: bool) -> None:
    assert (sequential.share_below(0, trials, 0.3) >= ENOUGH) is found


def test_looking_after_every_call_is_wrong_no_more_often_than_promised() -> None:
    chance, wrong, runs = random.Random(3), 0, 1_500  # noqa: S311
    for _ in range(runs):
        failures = 0
        for trials in range(1, 201):
            failures += chance.random() < 0.1
            if sequential.share_above(failures, trials, 0.1) >= ENOUGH:
                wrong += 1
                break
    assert wrong <= ALPHA * runs


@given(st.integers(0, 50), st.integers(0, 300))
def test_the_upper_bound_is_above_what_was_seen_and_falls_with_more_of_the_same(broken: int, good: int) -> None:
    counts = Counts(broken + good, broken)
    bound = sequential.upper_bound(counts, 0.01)
    assert counts.rate <= bound <= 1.0
    assert bound <= sequential.upper_bound(counts, 0.001) + 1e-9
    if good and broken:
        twice = sequential.upper_bound(Counts(2 * counts.exposed, 2 * broken), 0.01)
        assert twice <= bound + 1e-9


def test_a_rate_of_nobody_is_none() -> None:
    assert Counts().rate == 0.0
    assert sequential.upper_bound(Counts(), 0.01) == 1.0
    assert sequential.upper_bound(Counts(4, 4), 0.01) == 1.0


@pytest.mark.parametrize("events", [0, 1, 5, 50, 500])
def test_what_a_count_may_come_from_lies_around_it(events: int) -> None:
    low, high = sequential.lowest_count(events), sequential.highest_count(events)
    assert low <= events <= high
    # A Poisson count lies within 2.326 standard deviations of either end.
    assert high - sequential.ONE_SIDED_99 * math.sqrt(high) == pytest.approx(events, abs=1e-6)
    if events:
        assert low + sequential.ONE_SIDED_99 * math.sqrt(low) == pytest.approx(events, abs=1e-6)
    else:
        assert low == 0.0


@pytest.mark.parametrize(("broken", "exposed", "rate", "expected"), [
    (0, 5, 0.0, 0.0), (1, 5, 0.0, -math.inf), (5, 5, 1.0, 0.0), (4, 5, 1.0, -math.inf),
    (1, 2, 0.5, math.log(0.25)),
])  # fmt: skip
def test_the_likelihood_at_its_ends(broken: int, exposed: int, rate: float, expected: float) -> None:
    assert sequential.log_likelihood(broken, exposed, rate) == pytest.approx(expected)
