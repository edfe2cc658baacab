"""Sequential tests: evidence that may be looked at as often as one likes.

Rule: looking again and again must not make a good thing look bad, nor a bad one good. So the evidence is an e-process:
capital that bets against a null hypothesis and cannot be expected to grow while that is true. By Ville's inequality it
ever reaches 1/α with probability α at most, whenever and however often one looks. The bet is a mixture of alternatives
fixed beforehand, divided by the best the null can say for itself:

    shares: E(s of n) = Σ w·θ^s·(1-θ)^(n-s) over θ above the null ÷ sup of q^s·(1-q)^(n-s) over q ≤ null
    counts: E(n) = Σ w·r^n·exp(-(r-1)·m) over ratios r, where the null expects m events or less (or, with r < 1, more)

(Ville 1939; Robbins 1970, method of mixtures; Wasserman, Ramdas & Balakrishnan 2020, universal inference; Ramdas,
Grünwald, Vovk & Shafer 2023, game-theoretic statistics.) Evidence is in nats here: natural logarithms.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

Bets = tuple[tuple[float, float], ...]
# Breaking rates the bet is spread over, with their shares of the capital. What breaks a fifth is what people meet.
BETS: Bets = ((0.05, 0.15), (0.1, 0.2), (0.2, 0.4), (0.5, 0.2), (0.9, 0.05))
# Where between the null and certainty the bets lie that a share is above it, or below.
BETWEEN: Bets = ((0.06, 0.2), (0.12, 0.2), (0.25, 0.2), (0.5, 0.2), (0.9, 0.2))
# So many times what is expected: more, and less.
MORE: Bets = ((2.0, 0.25), (4.0, 0.35), (10.0, 0.25), (30.0, 0.15))
LESS: Bets = ((0.5, 0.3), (0.2, 0.3), (0.05, 0.4))
ONE_SIDED_99 = 2.326


@dataclass(frozen=True)
class Counts:
    """Of so many that were exposed (plugins, calls) so many broke."""

    exposed: int = 0
    broken: int = 0

    @property
    def rate(self) -> float:
        """The share that broke, 0 to 1."""
        return self.broken / self.exposed if self.exposed else 0.0


@lru_cache(maxsize=65_536)
def log_evidence(broken: int, exposed: int, null: float, bets: Bets = BETS) -> float:
    """ln E against "no more than the share `null` breaks"; -inf when no bet lies above the null."""
    if exposed <= 0:
        return 0.0
    best = min(null, broken / exposed)
    for_null = log_likelihood(broken, exposed, best)
    terms = [math.log(share) + log_likelihood(broken, exposed, rate) - for_null for rate, share in bets if rate > null]
    if not terms:
        return -math.inf
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def log_likelihood(broken: int, exposed: int, rate: float) -> float:
    """The natural logarithm of rate^broken · (1-rate)^(exposed-broken), with 0^0 = 1."""
    good = exposed - broken
    if (broken and rate <= 0.0) or (good and rate >= 1.0):
        return -math.inf
    return (broken * math.log(rate) if broken else 0.0) + (good * math.log1p(-rate) if good else 0.0)


@lru_cache(maxsize=4_096)
def upper_bound(counts: Counts, delta: float) -> float:
    """A rate that the true one never exceeds, at any look, but with probability `delta`.

    The end of the confidence sequence of the Beta(½, ½) mixture: the rates that it is less than 1/δ times as likely as
    (Robbins 1970; Waudby-Smith & Ramdas 2020, prior-posterior ratio).
    """
    broken, exposed = counts.broken, counts.exposed
    if broken >= exposed:
        return 1.0
    mixture = _log_beta(broken + 0.5, exposed - broken + 0.5) - _log_beta(0.5, 0.5)
    low, high = broken / exposed, 1.0
    for _ in range(40):
        middle = (low + high) / 2.0
        if mixture - log_likelihood(broken, exposed, middle) < -math.log(delta):
            low = middle
        else:
            high = middle
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def share_above(events: int, trials: int, null: float) -> float:
    """ln E against "the share is `null` at most"."""
    return log_evidence(events, trials, null, tuple((null + (1.0 - null) * far, share) for far, share in BETWEEN))


def share_below(events: int, trials: int, null: float) -> float:
    """ln E against "the share is `null` at least"."""
    return share_above(trials - events, trials, 1.0 - null)


def count_above(events: int, expected: float) -> float:
    """ln E against "no more than so many were to be expected"."""
    return _counted(events, expected, MORE)


def count_below(events: int, expected: float) -> float:
    """ln E against "no fewer than so many were to be expected"."""
    return _counted(events, expected, LESS)


def _counted(events: int, expected: float, bets: Bets) -> float:
    terms = [math.log(share) + events * math.log(ratio) - (ratio - 1.0) * expected for ratio, share in bets]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def highest_count(events: int) -> float:
    """What a count may come from at the most (one-sided 99 %, Poisson)."""
    square = ONE_SIDED_99**2
    return events + square / 2.0 + ONE_SIDED_99 * math.sqrt(events + square / 4.0)


def lowest_count(events: int) -> float:
    """What a count may come from at the least (one-sided 99 %, Poisson)."""
    square = ONE_SIDED_99**2
    return max(0.0, events + square / 2.0 - ONE_SIDED_99 * math.sqrt(events + square / 4.0))
