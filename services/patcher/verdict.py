"""Verdict: whether a remedy helped, said as soon as the evidence allows it: pass, fail or insufficient.

Rule: only beats of the switched generation count as *after*; *before* is the generation that ran before it. The figures
of every detector take part (`evidence.FIGURES`), and whatever is tested may be looked at as often as one likes
(`sequential`): over all looks together a good remedy is called bad, and a bad one good, with probability α at most.

- It fails when the plugin dies or falls silent, when a share or a count can no longer be explained by what was before
  or by what befalls the control group, or when a detector opens an incident about the new generation.
- It passes when enough beats came, the plugin is healthy, the symptom is gone, levels are as usual, and there is
  evidence that webhooks work. No traffic is no proof: without it a pass is *low evidence*. One is waited for only while
  traffic is to be expected, for the agent reverts by itself when no commit comes in time.
- What remains insufficient at the deadline is decided by the release's own probe, run in place: good, and nothing went
  wrong, is a pass with low evidence, anything else a fail.
"""

import enum
import math
from dataclasses import dataclass, replace

from services.patcher.evidence import BY_FINDING, FIGURES, Evidence, Kind, Level, Probe, Rules, Sums
from services.patcher.sequential import (
    Counts,
    count_above,
    count_below,
    highest_count,
    lowest_count,
    share_above,
    share_below,
    upper_bound,
)

ENOUGH_ATTEMPTS = 10
DOWN_BEATS = 2
UNHEALTHY_BEATS = 3
# Errors come in clusters: so many times what was to be expected, and one more, are no news.
CLUSTERED = 1.5
ALLOWED_EVENTS = 1.0
# A symptom that is counted is gone when there is evidence that less than this part of it is left.
LEFT = 0.5
# A level is worse from twice its usual value on, or from three standard deviations.
LEVEL_RATIO, LEVEL_SPREADS = 2.0, 3.0
TESTS = sum(figure.kind in {Kind.SHARE, Kind.COUNT} for figure in FIGURES.values())


class Result(enum.StrEnum):
    """The three verdicts."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class Verdict:
    """The verdict in a word, in a sentence, and the figures it rests on."""

    result: Result
    explanation: str
    beats: int = 0
    before: float = 0.0
    after: float = 0.0
    control: float = 0.0
    low_evidence: bool = False


def judge(evidence: Evidence, rules: Rules) -> Verdict:
    """The verdict on what has been seen so far."""
    if failed := _dead(evidence, rules) or _worse(evidence, rules) or _found(evidence):
        return _verdict(evidence, Result.FAIL, failed)
    lacking = _lacking(evidence, rules) or _symptom_left(evidence, rules)
    if lacking:
        return _by_probe(evidence, lacking) if evidence.last_call else _verdict(evidence, Result.INSUFFICIENT, lacking)
    unproven = _unproven(evidence, rules)
    if not unproven:
        return _verdict(evidence, Result.PASS, _healed(evidence))
    may_ask = evidence.probe is Probe.NOT_REQUESTED and not evidence.last_call
    if may_ask and (evidence.after.attempts or evidence.before.attempts):
        return _verdict(evidence, Result.INSUFFICIENT, unproven)
    return _low(evidence, f"{_healed(evidence)}; {unproven}")


def _dead(evidence: Evidence, rules: Rules) -> str:
    if evidence.health == "down" and evidence.after.beats >= DOWN_BEATS:
        return "the plugin is down after the switch"
    if evidence.health == "unhealthy" and evidence.after.beats >= UNHEALTHY_BEATS:
        return "the plugin calls itself unhealthy after the switch"
    if evidence.silent > rules.silence:
        return f"silent for {evidence.silent:.0f} s after the switch"
    return ""


def _worse(evidence: Evidence, rules: Rules) -> str:
    """What of the figures that are tested cannot be explained; α is shared among the tests."""
    enough = math.log(TESTS / rules.alpha)
    for name, figure in FIGURES.items():
        if figure.kind is Kind.SHARE and _share_evidence(evidence, rules, name) >= enough:
            return f"{_webhooks(evidence.after)} after the switch ({evidence.before.rate:.0%} before)"
        if figure.kind is Kind.COUNT:
            count, expected = getattr(evidence.after, figure.events), _expected(evidence, figure.events)
            if count_above(count, CLUSTERED * expected + ALLOWED_EVENTS) >= enough:
                return f"{count} {figure.called} after the switch, {expected:.1f} to be expected"
    return ""


def _share_evidence(evidence: Evidence, rules: Rules, name: str) -> float:
    """Evidence that more webhooks fail than may, than failed before where that was not the symptom, or elsewhere."""
    before, after, control = evidence.before, evidence.after, evidence.control
    null, delta = rules.threshold, rules.alpha / (10.0 * TESTS)
    if evidence.symptom != name and before.attempts:
        known = upper_bound(Counts(before.attempts, before.failures), delta)
        null = max(null, min(known, rules.ceiling)) if before.rate > null else null
    if control.attempts >= ENOUGH_ATTEMPTS and before.rate <= rules.threshold and not evidence.last_call:
        # What hits everybody at the same moment was not brought by this switch; wait as long as we may.
        null = max(null, upper_bound(Counts(control.attempts, control.failures), delta)) if control.failures else null
    return share_above(after.failures, after.attempts, null)


def _expected(evidence: Evidence, events: str) -> float:
    """How many events were to be expected at the most, by the rate before and by that of the control group."""
    rates = [
        highest_count(getattr(sums, events)) / sums.lasted
        for sums in (evidence.before, evidence.control)
        if sums.lasted > 0.0 and getattr(sums, events)
    ]
    return max(rates, default=0.0) * evidence.after.lasted


def _found(evidence: Evidence) -> str:
    known = (name for name in evidence.findings if name not in FIGURES or FIGURES[name].kind in BY_FINDING)
    return next((f"{name} was opened about the new generation" for name in known if name != evidence.symptom), "")


def _lacking(evidence: Evidence, rules: Rules) -> str:
    after = evidence.after
    if after.beats < rules.beats:
        return f"{after.beats} of {rules.beats} beats of the new generation"
    if evidence.health != "healthy":
        return f"the plugin is {evidence.health or 'of unknown health'}"
    if after.rate > rules.threshold:
        return f"{_webhooks(after)}, at most {rules.threshold:.0%} may"
    if evidence.drifts:
        return "it reports another configuration than it was given"
    return next((_above(level) for level in evidence.levels if is_above(level)), "")


def is_above(level: Level) -> bool:
    """Whether a level is clearly above what is usual."""
    return level.present > level.usual * max(LEVEL_RATIO, math.exp(LEVEL_SPREADS * level.spread))


def _above(level: Level) -> str:
    return f"{level.name} is {level.present:.3g}, {level.usual:.3g} is usual"


def _symptom_left(evidence: Evidence, rules: Rules) -> str:
    """Why the symptom cannot be called gone yet; empty when it can."""
    before, after, figure = evidence.before, evidence.after, FIGURES.get(evidence.symptom)
    if figure is None or figure.kind not in {Kind.SHARE, Kind.COUNT}:
        return ""
    if figure.kind is Kind.SHARE:
        return _unproven(evidence, rules)
    # Counted by the webhook where there are any, so that a quiet hour is no cure.
    by_call = bool(before.attempts)
    exposure = after.attempts / before.attempts if by_call else after.lasted / max(before.lasted, 1.0)
    left = LEFT * lowest_count(getattr(before, figure.events)) * exposure
    count = getattr(after, figure.events)
    if not getattr(before, figure.events) or count_below(count, left) >= -math.log(rules.alpha):
        return ""
    return f"{count} {figure.called}, {2 * left:.1f} would have come as before: not clearly fewer yet"


def _unproven(evidence: Evidence, rules: Rules) -> str:
    """Why there is no evidence yet that webhooks work; empty when there is."""
    after = evidence.after
    if share_below(after.failures, after.attempts, rules.ceiling) >= -math.log(rules.alpha):
        return ""
    return f"{after.attempts} webhooks seen, too few to prove anything"


def _by_probe(evidence: Evidence, lacking: str) -> Verdict:
    after = evidence.after
    counted = sum(getattr(after, figure.events) for figure in FIGURES.values() if figure.events)
    worse = any(is_above(level) for level in evidence.levels) or evidence.drifts
    clean = not counted and not worse and evidence.health in {"healthy", ""}
    if evidence.probe is Probe.GOOD and clean and after.beats > 0:
        return _low(evidence, f"{lacking}; the release's own probe is good and no error came")
    answer = {Probe.GOOD: "the probe is good, and not everything is well", Probe.BAD: "the probe failed"}
    return _verdict(evidence, Result.FAIL, f"{lacking}; {answer.get(evidence.probe, 'the probe did not answer')}")


def _healed(evidence: Evidence) -> str:
    if evidence.after.attempts:
        return f"{_webhooks(evidence.after)} after the switch ({evidence.before.rate:.0%} before)"
    return f"{evidence.after.beats} healthy beats of the new generation"


def _webhooks(sums: Sums) -> str:
    return f"{sums.rate:.0%} of {sums.attempts} webhooks fail"


def _low(evidence: Evidence, explanation: str) -> Verdict:
    return replace(_verdict(evidence, Result.PASS, explanation), low_evidence=True)


def _verdict(evidence: Evidence, result: Result, explanation: str) -> Verdict:
    return Verdict(
        result, explanation, evidence.after.beats, evidence.before.rate, evidence.after.rate, evidence.control.rate
    )
