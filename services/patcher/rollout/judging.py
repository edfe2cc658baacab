"""Judging: whether a build breaks more plugins than chance and the surroundings explain, asked after each result.

Rule: looking again and again must not make a good build look bad. So the evidence is an e-process: capital that bets
against "the build breaks no more than the null rate" and cannot be expected to grow while that is true. By Ville's
inequality it ever reaches 1/α with probability α at most, whenever and however often one looks. The bet is a mixture
of breaking rates fixed beforehand, divided by the best the null can say for itself:

    E(s broken of n) = Σ w·θ^s·(1-θ)^(n-s) over rates θ above the null ÷ sup of q^s·(1-q)^(n-s) over q ≤ null

What follows from it here:

- Results come in any order, and a build that breaks does so sooner than a good one proves itself. So results stand in
  the order of the *switches*, which nobody's health decides, and a plugin not known to be broken counts as good. That
  can only lower the evidence, never raise it above what the final results give, so the guarantee stands.
- Half of the capital bets on the whole rollout, the other half in equal parts on each wave. A wave that goes bad after
  good ones is found as well, and α holds for the rollout as a whole, however many waves it has.
- The null rate is the floor (2 %). As soon as the control group itself speaks against the floor, its upper bound
  takes the floor's place: what hits everybody is nobody's build. A tenth of α pays for that bound.
- The answer has three values. Evidence of 1/α fails the wave. Too few plugins, or evidence of `doubt` against the
  floor, is insufficient: it neither promotes nor rolls back. Evidence of 1/α against the floor that the control group
  takes back is trouble all around: nothing more should be started until a person has looked.

The mathematics of one test is in `sequential`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.patcher.sequential import Counts, log_evidence, upper_bound
from services.patcher.verdict import Result

CONTROL_SHARE = 0.1
LARGEST = 1e12  # evidence is told up to here; beyond, it says nothing more to anybody


@dataclass(frozen=True)
class Exposure:
    """The plugins of a wave in the order in which they were switched: how many, and the places (from 1) that broke."""

    exposed: int = 0
    broken: tuple[int, ...] = ()

    @property
    def counts(self) -> Counts:
        """The same without the order."""
        return Counts(self.exposed, len(self.broken))


@dataclass(frozen=True)
class Rules:
    """The bounds of a judgement: false halts per rollout (α), noise allowed (0 to 1), evidence that makes doubtful."""

    alpha: float = 0.01
    floor: float = 0.02
    doubt: float = 10.0

    @property
    def threshold(self) -> float:
        """The evidence that halts."""
        return 1.0 / (self.alpha * (1.0 - CONTROL_SHARE))


@dataclass(frozen=True)
class Judgement:
    """The answer, and what it rests on: `evidence` is an e-value, `null` the breaking rate that is explained away."""

    result: Result
    wave: Counts
    control: Counts
    null: float
    evidence: float
    doubtful: bool
    needed: int = 0
    common_cause: bool = False


def judge(waves: Sequence[Exposure], planned: int, control: Counts, rules: Rules, needed: int = 1) -> Judgement:
    """Judges the last of the waves begun so far, of `planned` in all; `needed` plugins must have been exposed."""
    null = null_rate(control, rules)
    evidence = _capital(waves, max(planned, len(waves)), null)
    wave = waves[-1].counts if waves else Counts()
    doubtful = doubt(wave, rules) >= rules.doubt
    failed = evidence >= rules.threshold
    lifted = null > rules.floor
    common_cause = lifted and not failed and _capital(waves, max(planned, len(waves)), rules.floor) >= rules.threshold
    result = Result.FAIL if failed else Result.PASS
    if not failed and (wave.exposed < needed or doubtful or common_cause):
        result = Result.INSUFFICIENT
    return Judgement(result, wave, control, null, evidence, doubtful, needed, common_cause)


def doubt(wave: Counts, rules: Rules) -> float:
    """The evidence of the wave alone against the floor, as things stand; what the control group shows is no excuse."""
    return _exp(log_evidence(wave.broken, wave.exposed, rules.floor))


def null_rate(control: Counts, rules: Rules) -> float:
    """The breaking rate that is not held against the build."""
    if log_evidence(control.broken, control.exposed, rules.floor) < 0.0 or not control.exposed:
        return rules.floor
    return max(rules.floor, upper_bound(control, rules.alpha * CONTROL_SHARE))


def _capital(waves: Sequence[Exposure], planned: int, null: float) -> float:
    """The highest capital over the prefixes of the last wave."""
    if not waves:
        return 1.0
    *past, last = waves
    exposed, broken = sum(wave.exposed for wave in past), sum(len(wave.broken) for wave in past)
    earlier = sum(_exp(log_evidence(len(wave.broken), wave.exposed, null)) for wave in past)
    waiting = planned - len(waves)
    highest = 0.0
    places = [(number, switch_number) for number, switch_number in enumerate(last.broken, 1)]
    for number, switch_number in [*places, (len(last.broken), last.exposed)]:
        own = _exp(log_evidence(number, switch_number, null))
        whole = _exp(log_evidence(broken + number, exposed + switch_number, null)) if past else own
        highest = max(highest, 0.5 * whole + 0.5 * (earlier + own + waiting) / planned)
    return min(highest, LARGEST)


def _exp(value: float) -> float:
    return math.exp(min(value, math.log(LARGEST)))
