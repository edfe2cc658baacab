"""Verified outcomes as a Beta posterior, and how sure that makes us of it.

Rule: a remedy's chance to help is Beta(1 + successes, 1 + failures); a prior is successes and failures assumed
beforehand. The confidence is the lower 90 % bound of that chance (its 10 % quantile), cut to hundredths
so that it never says more than is known: 0.31 after one lucky success, 0.89 after twenty in a row. Pure: the bound is
the inverse of the regularised incomplete beta function, by its continued fraction (Lentz) and bisection.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

QUANTILE = 0.10
_TINY = 1e-300
_TERMS = 2000


@dataclass(frozen=True)
class Outcomes:
    """Verified outcomes of a remedy, or the pseudo-counts of a prior; fractions are allowed."""

    successes: float = 0.0
    failures: float = 0.0

    def __add__(self, other: "Outcomes") -> "Outcomes":
        """Both together."""
        return Outcomes(self.successes + other.successes, self.failures + other.failures)

    @property
    def alpha(self) -> float:
        """First parameter of the posterior."""
        return 1.0 + self.successes

    @property
    def beta(self) -> float:
        """Second parameter of the posterior."""
        return 1.0 + self.failures

    @property
    def mean(self) -> float:
        """Expected rate of success."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def confidence(self) -> float:
        """The lower 90 % bound, cut to hundredths."""
        return floor_hundredths(quantile(QUANTILE, self.alpha, self.beta))


NO_OUTCOMES = Outcomes()


def prior_with_bound(confidence: float) -> Outcomes:
    """The unbroken successes whose lower bound is just `confidence` (0 < confidence < 1)."""
    return Outcomes(successes=max(0.0, math.log(QUANTILE) / math.log(confidence) - 1.0))


def floor_hundredths(bound: float) -> float:
    """Cut to hundredths, never rounded up; a hair is forgiven so that 0.87 stays 0.87."""
    return math.floor(bound * 100 + 1e-6) / 100


@lru_cache(maxsize=4096)
def quantile(probability: float, alpha: float, beta: float) -> float:
    """The point below which Beta(alpha, beta) has `probability` of its mass, to about 1e-12.

    Raises ValueError outside 0 ≤ probability ≤ 1 or for parameters that are not positive and finite.
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
    if not (0.0 < alpha < math.inf and 0.0 < beta < math.inf):
        raise ValueError(f"Beta({alpha}, {beta}) needs positive, finite parameters")
    if probability in (0.0, 1.0):
        return probability
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        # Also ends when no number lies between the two any more.
        if high - low < 1e-13 or middle in (low, high):
            return middle
        if mass_below(middle, alpha, beta) < probability:
            low = middle
        else:
            high = middle


def mass_below(point: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function: the mass of Beta(alpha, beta) below `point`."""
    if point <= 0.0:
        return 0.0
    if point >= 1.0:
        return 1.0
    logarithm = (
        math.lgamma(alpha + beta)
        - math.lgamma(alpha)
        - math.lgamma(beta)
        + alpha * math.log(point)
        + beta * math.log1p(-point)
    )
    # The fraction converges fast on the near side of the mean only; the other side is its mirror image.
    if point < (alpha + 1) / (alpha + beta + 2):
        return math.exp(logarithm) * _fraction(point, alpha, beta) / alpha
    return 1.0 - math.exp(logarithm) * _fraction(1 - point, beta, alpha) / beta


def _fraction(point: float, alpha: float, beta: float) -> float:
    """Lentz's evaluation of the continued fraction of the incomplete beta function."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (alpha + beta) * point / (alpha + 1))
    result = d
    for m in range(1, _TERMS):
        even = m * (beta - m) * point / ((alpha + 2 * m - 1) * (alpha + 2 * m))
        odd = -(alpha + m) * (alpha + beta + m) * point / ((alpha + 2 * m) * (alpha + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            change = c * d
            result *= change
        if abs(change - 1.0) < 1e-15:
            break
    return result


def _away_from_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY
