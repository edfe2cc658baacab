"""The sequential test keeps its promise, computed exactly and simulated, however results arrive."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.patcher.rollout.concurrency import Concurrency, after, headroom, in_flight_limit
from services.patcher.rollout.judging import Exposure, Rules, judge, null_rate
from services.patcher.sequential import BETS, Counts, log_evidence, upper_bound
from services.patcher.verdict import Result

RULES = Rules()
NOBODY = Counts()


def chance_of_a_halt(rate: float, size: int, threshold: float = RULES.threshold, null: float = RULES.floor) -> float:
    """Exactly how likely a wave of this size halts when each plugin breaks with this rate, looked at after each."""
    going, halted = {0: 1.0}, 0.0
    for exposed in range(1, size + 1):
        further: dict[int, float] = {}
        for broken, weight in going.items():
            further[broken] = further.get(broken, 0.0) + weight * (1 - rate)
            if math.exp(min(99.0, log_evidence(broken + 1, exposed, null))) >= threshold:
                halted += weight * rate
            else:
                further[broken + 1] = further.get(broken + 1, 0.0) + weight * rate
        going = {broken: weight for broken, weight in further.items() if weight > 1e-15}
    return halted


@pytest.mark.parametrize("rate", [0.001, 0.005, 0.01, 0.015, 0.02])
def test_a_good_build_is_halted_less_often_than_promised_whatever_its_noise(rate: float) -> None:
    assert chance_of_a_halt(rate, 2_000) <= RULES.alpha


@pytest.mark.parametrize(("rate", "found"), [(0.05, 0.95), (0.1, 0.999), (0.2, 0.999), (0.5, 0.999)])
def test_a_bad_build_is_found_within_a_wave_of_a_thousand(rate: float, found: float) -> None:
    assert chance_of_a_halt(rate, 1_000) >= found


@pytest.mark.parametrize("floor", [0.005, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
def test_the_promise_holds_for_other_bounds_as_well(floor: float, alpha: float) -> None:
    assert chance_of_a_halt(floor, 500, Rules(alpha, floor).threshold, floor) <= alpha


@given(st.integers(1, 200), st.floats(0.001, 0.3), st.data())
def test_the_evidence_is_never_expected_to_grow_while_the_null_is_true(
    exposed: int, null: float, data: st.DataObject
) -> None:
    # One plugin more, of which each rate up to the null is the truth: the bet of each rate loses on average.
    truth = data.draw(st.floats(0.0, null))
    for rate, _ in BETS:
        if rate > null:
            assert truth * rate / null + (1 - truth) * (1 - rate) / (1 - null) <= 1.0 + 1e-9


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0.001, 0.5))
def test_more_broken_among_as_many_is_more_evidence(broken: int, good: int, null: float) -> None:
    exposed = broken + good
    less = log_evidence(broken - 1, exposed, null)
    assert log_evidence(broken, exposed, null) >= less - 1e-9


def worst_order(wave: Sequence[bool]) -> bool:
    """Whether a wave halts when all broken ones are heard at once and the good ones much later."""
    broken = tuple(switch_number for switch_number, breaks in enumerate(wave, 1) if breaks)
    return any(
        judge([Exposure(len(wave), broken[:heard])], 1, NOBODY, RULES).result is Result.FAIL
        for heard in range(1, len(broken) + 1)
    )


def test_broken_plugins_that_are_heard_first_do_not_make_a_good_build_look_bad() -> None:
    chance, halted = random.Random("worst order"), 0  # noqa: S311
    for _ in range(2_000):
        halted += worst_order([chance.random() < 0.02 for _ in range(200)])
    # 2,000 draws of at most 1 % stay below 1.6 % with 99.5 %.
    assert halted / 2_000 <= 0.016


def test_the_promise_holds_for_the_rollout_as_a_whole_however_many_waves_it_has() -> None:
    chance, halted = random.Random("many waves"), 0  # noqa: S311
    sizes = (5, 45, 50, 100, 200)
    for _ in range(1_500):
        waves: list[Exposure] = []
        for size in sizes:
            broken = tuple(switch_number for switch_number in range(1, size + 1) if chance.random() < 0.02)
            waves.append(Exposure(size, broken))
            if judge(waves, len(sizes), NOBODY, RULES).result is Result.FAIL:
                halted += 1
                break
    assert halted / 1_500 <= 0.0167


def test_a_wave_that_goes_bad_after_good_ones_is_found() -> None:
    good = [Exposure(5), Exposure(195), Exposure(300)]
    assert judge([*good, Exposure(12, (2, 5, 9, 12))], 4, NOBODY, RULES).result is Result.FAIL
    assert judge([*good, Exposure(12, (2,))], 4, NOBODY, RULES).result is Result.PASS


def test_the_upper_bound_is_exceeded_as_seldom_as_it_says_at_any_look() -> None:
    chance, wrong = random.Random("upper"), 0  # noqa: S311
    for _ in range(400):
        exposed = broken = 0
        for _ in range(40):
            exposed += 10
            broken += sum(chance.random() < 0.1 for _ in range(10))
            if upper_bound(Counts(exposed, broken), 0.05) < 0.1:
                wrong += 1
                break
    assert wrong / 400 <= 0.08


@pytest.mark.parametrize(
    ("control", "null"), [(NOBODY, 0.02), (Counts(15), 0.02), (Counts(1_000, 20), 0.02), (Counts(100, 2), 0.02)]
)
def test_the_floor_stands_while_the_control_group_shows_no_more_than_noise(control: Counts, null: float) -> None:
    assert null_rate(control, RULES) == null


def test_a_control_group_that_breaks_lifts_the_null_above_what_it_shows() -> None:
    assert null_rate(Counts(100, 20), RULES) > 0.2
    wave = [Exposure(20, (3, 9, 14, 20))]
    assert judge(wave, 1, NOBODY, RULES).result is Result.FAIL
    beside = judge(wave, 1, Counts(100, 20), RULES)
    assert beside.result is Result.INSUFFICIENT and beside.common_cause
    assert judge([Exposure(10, tuple(range(1, 11)))], 1, Counts(100, 20), RULES).result is Result.FAIL


@pytest.mark.parametrize(
    ("wave", "needed", "result"),
    [
        (Exposure(5), 5, Result.PASS),
        (Exposure(5, (3,)), 5, Result.PASS),
        (Exposure(5, (3, 5)), 5, Result.INSUFFICIENT),
        (Exposure(5, (1, 3, 5)), 5, Result.FAIL),
        (Exposure(4), 5, Result.INSUFFICIENT),
        (Exposure(0), 1, Result.INSUFFICIENT),
        (Exposure(0), 0, Result.PASS),
        (Exposure(3, (1, 2, 3)), 5, Result.FAIL),
    ],
    ids=["clean", "one", "two", "three", "few", "nobody", "nobody needed", "guilty at once"],
)
def test_the_answer_has_three_values(wave: Exposure, needed: int, result: Result) -> None:
    assert judge([wave], 1, NOBODY, RULES, needed).result is result


@pytest.mark.parametrize(("count", "bet"), [(0, 0.02), (10, 0.9), (10, 0.95)])
def test_evidence_is_never_out_of_range(count: int, bet: float) -> None:
    assert judge([Exposure(10_000, tuple(range(1, 10_001)))], 1, NOBODY, RULES).evidence == pytest.approx(1e12)
    assert log_evidence(count, 10, bet) <= 0.0


def run(concurrency: Concurrency, results: Sequence[bool], budget: int = 16, *, doubtful: bool = False) -> Concurrency:
    for counted_against in results:
        concurrency = after(concurrency, counted_against=counted_against, doubtful=doubtful, budget=budget, floor=0.02)
    return concurrency


def test_each_clean_batch_doubles_the_pace_up_to_the_budget() -> None:
    assert [run(Concurrency(), [False] * count).width for count in (0, 1, 3, 7, 15, 31, 500)] == [
        1,
        2,
        4,
        8,
        16,
        16,
        16,
    ]
    assert run(Concurrency(), [False] * 40, budget=6).width == 6


def test_a_batch_that_broke_more_than_noise_halves_the_pace_at_once() -> None:
    assert run(Concurrency(16), [False, True]) == Concurrency(8)
    assert run(Concurrency(1), [True]) == Concurrency(1)
    assert run(Concurrency(100), [True, True], budget=200) == Concurrency(100, 2, 2), "two of a hundred are noise"
    assert run(Concurrency(100), [True, True, True], budget=200) == Concurrency(50)


def test_a_wave_in_doubt_goes_on_one_by_one() -> None:
    assert run(Concurrency(16, 3), [False], doubtful=True) == Concurrency(1)


def test_room_is_what_is_left_of_pace_and_budget() -> None:
    assert [headroom(Concurrency(8), 16, 3), headroom(Concurrency(8), 4, 3), headroom(Concurrency(2), 16, 5)] == [
        5,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("absolute", "percent", "plugins", "limit"),
    [
        (16, 10, 1, 1),
        (16, 10, 3, 1),
        (16, 10, 10, 1),
        (16, 10, 11, 2),
        (16, 10, 288, 16),
        (16, 0.1, 0, 1),
        (50, 7, 100, 7),
    ],
)
def test_the_in_flight_limit_is_a_number_or_a_share_but_at_least_one(
    absolute: int, percent: float, plugins: int, limit: int
) -> None:
    assert in_flight_limit(absolute, percent, plugins) == limit


@pytest.mark.parametrize(
    ("absolute", "percent", "field"), [(0, 10, "budget"), (1, 0, "budget_percent"), (1, 101, "budget_percent")]
)
def test_a_limit_that_makes_no_sense_is_refused(absolute: int, percent: float, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        in_flight_limit(absolute, percent, 10)
    assert refused.value.field == field
