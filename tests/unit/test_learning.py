"""What was learned: the exact bound of a Beta posterior, and what each end of an attempt teaches."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.beta_posterior import Outcomes, floor_hundredths, mass_below, prior_with_bound, quantile
from services.decider.learning import Label, label_outcome


@pytest.mark.parametrize(
    ("probability", "alpha", "beta", "point"),
    [
        # Closed forms: Beta(a, 1) has the quantile p**(1/a), Beta(1, b) has 1 - (1 - p)**(1/b), the arcsine law sin².
        (0.10, 17, 1, 0.1 ** (1 / 17)),
        (0.10, 1, 9, 1 - 0.9 ** (1 / 9)),
        (0.10, 0.5, 0.5, math.sin(math.pi * 0.10 / 2) ** 2),
        (0.50, 1, 1, 0.5),
        (0.25, 2, 2, 0.326351822333),
        # From the binomial sum in exact arithmetic, 50 digits.
        (0.10, 2, 3, 0.142559316710),
        (0.10, 10, 3, 0.614478308532),
        (0.10, 90, 10, 0.860288622473),
        (0.10, 400, 37, 0.897915173511),
        (0.90, 3, 10, 0.385521691468),
    ],
)
def test_the_quantile_agrees_with_known_values(probability: float, alpha: float, beta: float, point: float) -> None:
    assert quantile(probability, alpha, beta) == pytest.approx(point, abs=1e-10)


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.floats(0.001, 0.999),
)
def test_the_mass_agrees_with_the_binomial_sum(alpha: int, beta: int, point: float) -> None:
    # I_x(a, b) = P(Binomial(a + b - 1, x) >= a), an independent way to the same number.
    count = alpha + beta - 1
    tail = math.fsum(
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + hits * math.log(point)
            + (count - hits) * math.log1p(-point)
        )
        for hits in range(alpha, count + 1)
    )
    assert mass_below(point, alpha, beta) == pytest.approx(tail, abs=1e-8)


@given(st.floats(0.001, 0.999), st.floats(0.05, 5000), st.floats(0.05, 5000))
def test_the_quantile_is_the_inverse_of_the_mass(probability: float, alpha: float, beta: float) -> None:
    point = quantile(probability, alpha, beta)
    if 1e-9 < point < 1 - 1e-9:
        assert mass_below(point, alpha, beta) == pytest.approx(probability, abs=1e-4)


@given(st.floats(0, 500), st.floats(0, 500))
def test_a_success_raises_the_confidence_and_a_failure_lowers_it(successes: float, failures: float) -> None:
    before = Outcomes(successes, failures).confidence
    assert Outcomes(successes + 1, failures).confidence >= before >= Outcomes(successes, failures + 1).confidence
    assert 0 <= before <= Outcomes(successes, failures).mean


@given(st.floats(0.05, 0.95))
def test_an_imagined_prior_states_the_confidence_it_was_made_for(confidence: float) -> None:
    prior = prior_with_bound(confidence)
    expected = max(confidence, 0.1)
    assert Outcomes(prior.successes, 0).confidence == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 1), (1, -1), (math.inf, 1), (math.nan, 1)])
def test_parameters_that_are_no_beta_are_refused(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        quantile(0.1, alpha, beta)


def test_a_stated_confidence_is_cut_not_rounded() -> None:
    assert floor_hundredths(0.8799) == 0.87
    assert floor_hundredths(0.87) == 0.87
    assert floor_hundredths(0.7499999) == 0.74


@pytest.mark.parametrize(
    ("fact", "failure", "dead_man", "outcome", "label", "wide"),
    [
        ("attempt_succeeded", "", False, "success", Label.POSITIVE, False),
        ("attempt_rolled_back", "verdict", False, "rolled_back", Label.NEGATIVE, False),
        ("attempt_rolled_back", "did_not_start", True, "rolled_back", Label.NEGATIVE, False),
        ("attempt_rolled_back", "", True, "reverted_alone", Label.NEUTRAL, False),
        ("attempt_rolled_back", "", False, "taken_back", Label.NEUTRAL, False),
        ("attempt_rollback_failed", "", False, "rollback_failed", Label.NEGATIVE, False),
        ("attempt_failed", "staging_failed", False, "staging_failed", Label.NEGATIVE, True),
        ("attempt_failed", "command_failed", False, "command_failed", Label.NEGATIVE, False),
        ("attempt_failed", "command_expired", False, "command_expired", Label.NEUTRAL, False),
        ("attempt_refused", "", False, "refused", Label.NEUTRAL, False),
        ("attempt_cancelled", "", False, "cancelled", Label.NEUTRAL, False),
    ],
)
def test_each_end_of_an_attempt_teaches_its_own_lesson(
    fact: str, failure: str, dead_man: bool, outcome: str, label: Label, wide: bool
) -> None:
    labelled = label_outcome(fact, failure=failure, dead_man=dead_man)
    assert (labelled.outcome, labelled.label, labelled.release_wide) == (outcome, label, wide)


def test_a_fact_that_ends_no_attempt_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="does not end"):
        label_outcome("attempt_created")
