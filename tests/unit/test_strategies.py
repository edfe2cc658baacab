"""Strategies: the best one first, never what was tried, never a write that nobody approved; status by outcomes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from libs.common.beta_posterior import Outcomes
from services.queue import patterns
from services.queue.report import Blocker, Origin, Report
from services.queue.strategies import (
    NEW,
    Check,
    StatusRules,
    Step,
    Strategy,
    StrategySet,
    StrategyStatus,
    blocker_of,
    confidence,
    fits,
    judge,
)

PRIOR = Outcomes(3, 3)
LOOK = Step("host.look", '{"plugin": "{plugin}"}')
CHANGE = Step("host.change", "{}", write=True)
CHECK = Check(Step("host.check"), "ok", "equals", "true")


def strategy(name: str, **changes: object) -> Strategy:
    plain = Strategy(name, "a title", "disk", (LOOK,), CHECK, Outcomes(9, 1))
    return replace(plain, **changes)  # type: ignore[arg-type]


def report(**changes: object) -> Report:
    plain = Report("r1", "p1", "m1", "relay", "1.0.0", "OSError", "no space left on device")
    return replace(plain, **changes)  # type: ignore[arg-type]


def order(
    *strategies: Strategy, statuses: dict[str, StrategyStatus] | None = None, told: Report | None = None
) -> list[tuple[str, Blocker | None]]:
    strategy_set = StrategySet(strategies, statuses=statuses or {})
    return [(fit.strategy.name, fit.blocker) for fit in fits(told or report(), "disk", strategy_set, Origin.PATTERN)]


def test_duration_and_tools_come_from_the_calls() -> None:
    assert strategy("look").estimated_seconds == 60 + 2 * 60
    writes = strategy("mend", steps=(LOOK, CHANGE, LOOK))
    assert (writes.tools, writes.writes) == (("host.look", "host.change", "host.check"), True)
    assert writes.estimated_seconds == 60 + 2 * 60 + 180
    assert strategy("known", declared_seconds=600.0).estimated_seconds == 600


def test_confidence_is_the_lower_bound_of_prior_and_verified_outcomes() -> None:
    plain = strategy("a", prior=Outcomes(0, 0))
    assert [confidence(plain, StrategyStatus(n)) for n in (0, 1, 20)] == [0.10, 0.31, 0.89]
    assert confidence(strategy("b"), NEW) > confidence(strategy("b"), StrategyStatus(failures=3))


def test_the_better_score_goes_first_and_equal_ones_by_name() -> None:
    good = strategy("good", prior=Outcomes(20, 0))
    assert order(strategy("b"), good, strategy("a")) == [("good", None), ("a", None), ("b", None)]


def test_what_is_made_for_the_package_goes_before_what_is_for_any_and_other_packages_are_left_out() -> None:
    own, other = strategy("own", package="relay", prior=Outcomes(1, 1)), strategy("other", package="shop")
    assert order(strategy("any"), own, other) == [("own", None), ("any", None)]


def test_a_strategy_may_ask_for_more_than_the_type() -> None:
    narrow = strategy("narrow", patterns=(patterns.read("space left"),))
    assert order(narrow) == [("narrow", None)]
    assert order(narrow, told=report(message="something else")) == []
    assert order(strategy("of_another_type", type="memory")) == []


def test_what_was_tried_comes_last_and_scores_nothing() -> None:
    strategy_set = StrategySet((strategy("a"), strategy("b")))
    first, last = fits(report(tried_strategies=("a",)), "disk", strategy_set, Origin.PATTERN)
    assert (first.strategy.name, last.strategy.name, last.score) == ("b", "a", 0.0)
    assert last.blocker is Blocker.ALL_TRIED


def test_a_write_waits_for_a_person() -> None:
    writes = strategy("writes", steps=(CHANGE,))
    assert order(writes) == [("writes", Blocker.WRITE_NOT_APPROVED)]
    assert order(writes, statuses={"writes": StrategyStatus(approved=True)}) == [("writes", None)]


def test_for_its_own_package_an_approval_is_asked_for_before_something_general_is_tried() -> None:
    own, general = strategy("own", steps=(CHANGE,), package="relay"), strategy("general")
    assert [name for name, _ in order(general, own)] == ["own", "general"]
    assert [name for name, _ in order(general, replace(own, package=""))] == ["general", "own"]


def test_a_model_alone_never_lets_anything_be_written() -> None:
    approved = StrategyStatus(approved=True)
    writes = strategy("writes", steps=(CHANGE,))
    for origin in Origin:
        expected = Blocker.MODEL_MAY_NOT_WRITE if origin is Origin.MODEL else None
        assert blocker_of(writes, approved, origin, tried=False) is expected
        assert blocker_of(strategy("looks"), NEW, origin, tried=False) is None


def test_retired_and_described_strategies_are_told_and_not_worked() -> None:
    retired = {"old": StrategyStatus(state="retired")}
    assert order(strategy("old"), strategy("told", auto_fixable=False), statuses=retired) == [
        ("told", Blocker.NOT_AUTO_FIXABLE),
        ("old", Blocker.RETIRED),
    ]


def test_a_demoted_strategy_goes_behind_one_that_is_not() -> None:
    assert order(strategy("a"), strategy("b"), statuses={"a": StrategyStatus(state="demoted")})[0] == ("b", None)


def test_a_fit_says_why() -> None:
    (fit,) = fits(report(), "disk", StrategySet((strategy("a", steps=(CHANGE,)),)), Origin.PATTERN)
    assert fit.explanation == (
        "candidate, states 0.68 after 0 verified successes and 0 failures (beside a prior of 9 and 1); "
        "for any package; it writes and no person approved it"
    )


def told(outcomes: str, prior: Outcomes = PRIOR) -> list[str]:
    """The states a new strategy goes through when it meets these outcomes (s and f)."""
    status, states = NEW, []
    for outcome in outcomes:
        verdict = judge(strategy("a", prior=prior), status, StatusRules(), success=outcome == "s")
        assert bool(verdict.reason) == (verdict.status.state != status.state)
        status = verdict.status
        states.append(status.state)
    return states


@pytest.mark.parametrize(
    ("outcomes", "states"),
    [
        ("ss", "candidate"),
        ("s" * 6, "active"),
        ("f", "candidate"),
        ("ff", "demoted"),
        ("f" * 9, "retired"),
        ("f" * 9 + "s" * 40, "retired"),
        ("ff" + "s" * 12, "active"),
        ("s" * 6 + "f" * 4, "active"),
        ("s" * 6 + "f" * 9, "demoted"),
    ],
)
def test_outcomes_promote_demote_and_retire(outcomes: str, states: str) -> None:
    assert told(outcomes)[-1] == states


def test_a_change_says_its_figures() -> None:
    verdict = judge(strategy("a", prior=Outcomes(3, 3)), StrategyStatus(failures=1), StatusRules(), success=False)
    assert verdict.reason == "demoted instead of candidate: 0 verified successes and 2 failures state 0.21, below 0.40"


@given(some.text(alphabet="sf", max_size=60))
def test_outcomes_are_counted_once_and_approval_never_changes(outcomes: str) -> None:
    status = StrategyStatus(approved=True)
    for outcome in outcomes:
        status = judge(strategy("a"), status, StatusRules(), success=outcome == "s").status
    assert (status.successes, status.failures) == (outcomes.count("s"), outcomes.count("f"))
    assert status.approved
