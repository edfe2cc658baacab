"""Verdict: whether a remedy helped, said as soon as the evidence allows it: pass, fail or insufficient.

Rule: only beats of the switched generation count as *after*. A remedy passes when at least five of them came, the
plugin is healthy, and the symptom is really gone: a failure rate within the policy's threshold and clearly below what
it was before. It fails as soon as figures can no longer be chance: the plugin dies, the rate stays above the
threshold with 99 % certainty, or errors come faster than before and faster than in the control group. What remains
insufficient at the deadline is decided by the release's own probe, run in place: good and not one error is a pass
with low evidence, anything else a fail.
"""

import enum
import math
from dataclasses import dataclass, replace

ONE_SIDED_99 = 2.326
ENOUGH_ATTEMPTS = 10
ENOUGH_ERRORS = 5
DOWN_BEATS = 2
UNHEALTHY_BEATS = 3


class Result(enum.StrEnum):
    """The three verdicts."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INSUFFICIENT = "insufficient"


class Probe(enum.StrEnum):
    """What the release's own probe said when it was asked in place."""

    NOT_REQUESTED = ""
    REQUESTED = "asked"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Sums:
    """Counters over a stretch of beats; `seconds` is how long it lasted."""

    beats: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Share of webhook attempts that failed; 0 when there were none."""
        return self.failures / self.attempts if self.attempts else 0.0

    @property
    def errors_per_minute(self) -> float:
        """How fast errors come; one beat is taken as at least a second."""
        return self.errors / max(self.seconds, self.beats, 1.0) * 60.0


@dataclass(frozen=True)
class Evidence:
    """Everything a verdict is made of. `silent` is seconds since the generation's last beat, or since the switch."""

    before: Sums
    after: Sums
    control: Sums
    symptom: str
    health: str = "healthy"
    silent: float = 0.0
    probe: Probe = Probe.NOT_REQUESTED
    last_call: bool = False


@dataclass(frozen=True)
class Rules:
    """The bounds of a verdict: beats needed, highest failure rate (0 to 1), longest silence (seconds)."""

    beats: int = 5
    threshold: float = 0.10
    silence: float = 120.0


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
    failed = _dead(evidence, rules) or _still_failing(evidence, rules) or _more_errors(evidence)
    if failed:
        return _verdict(evidence, Result.FAIL, failed)
    lacking = _lacking(evidence, rules)
    if not lacking:
        return _verdict(evidence, Result.PASS, _healed(evidence))
    if evidence.last_call:
        return _by_probe(evidence, lacking)
    return _verdict(evidence, Result.INSUFFICIENT, lacking)


def _dead(evidence: Evidence, rules: Rules) -> str:
    if evidence.health == "down" and evidence.after.beats >= DOWN_BEATS:
        return "the plugin is down after the switch"
    if evidence.health == "unhealthy" and evidence.after.beats >= UNHEALTHY_BEATS:
        return "the plugin calls itself unhealthy after the switch"
    if evidence.silent > rules.silence:
        return f"silent for {evidence.silent:.0f} s after the switch"
    return ""


def _still_failing(evidence: Evidence, rules: Rules) -> str:
    after, control = evidence.after, evidence.control
    if after.attempts < ENOUGH_ATTEMPTS or lower_bound(after.failures, after.attempts) <= rules.threshold:
        return ""
    worse = after.rate > evidence.before.rate or evidence.symptom == "webhook_fail_rate"
    if not worse and after.rate <= rules.threshold * 3:
        return ""
    peers_suffer = control.attempts >= ENOUGH_ATTEMPTS and control.rate >= after.rate and not evidence.last_call
    if peers_suffer and evidence.before.rate <= rules.threshold:
        # What hits everybody at the same moment was not brought by this switch; wait as long as we may.
        return ""
    return f"{after.rate:.0%} of {after.attempts} webhooks fail after the switch ({evidence.before.rate:.0%} before)"


def _more_errors(evidence: Evidence) -> str:
    after, before = evidence.after, evidence.before
    if after.errors < ENOUGH_ERRORS or after.beats < 2:
        return ""
    expected = max(before.errors_per_minute, evidence.control.errors_per_minute)
    # A Poisson count this far above the expectation is no chance (one-sided 99 %).
    bound = expected * max(after.seconds, after.beats) / 60.0
    if after.errors > 1.5 * bound + ONE_SIDED_99 * math.sqrt(bound + 1.0):
        return f"{after.errors_per_minute:.1f} errors a minute after the switch, {expected:.1f} expected"
    return ""


def _lacking(evidence: Evidence, rules: Rules) -> str:
    after = evidence.after
    if after.beats < rules.beats:
        return f"{after.beats} of {rules.beats} beats of the new generation"
    if evidence.health != "healthy":
        return f"the plugin is {evidence.health or 'of unknown health'}"
    if evidence.symptom == "webhook_fail_rate" and after.attempts < ENOUGH_ATTEMPTS:
        return f"{after.attempts} of {ENOUGH_ATTEMPTS} webhooks seen"
    if after.rate > rules.threshold:
        return f"{after.rate:.0%} of {after.attempts} webhooks fail, at most {rules.threshold:.0%} may"
    if evidence.symptom == "webhook_fail_rate" and not clearly_below(after, evidence.before):
        return f"{after.rate:.0%} of {after.attempts} webhooks fail: not clearly below {evidence.before.rate:.0%} yet"
    if evidence.symptom == "error_spike" and after.errors_per_minute > 0.5 * evidence.before.errors_per_minute:
        return f"{after.errors_per_minute:.1f} errors a minute: not clearly below before yet"
    return ""


def _by_probe(evidence: Evidence, lacking: str) -> Verdict:
    clean = not evidence.after.errors and not evidence.after.failures and evidence.health in {"healthy", ""}
    if evidence.probe is Probe.GOOD and clean and evidence.after.beats > 0:
        passed = _verdict(evidence, Result.PASS, f"{lacking}; the release's own probe is good and no error came")
        return replace(passed, low_evidence=True)
    answer = {Probe.GOOD: "the probe is good but errors came", Probe.BAD: "the probe failed"}
    return _verdict(evidence, Result.FAIL, f"{lacking}; {answer.get(evidence.probe, 'the probe did not answer')}")


def _healed(evidence: Evidence) -> str:
    after = evidence.after
    if after.attempts:
        return (
            f"{after.rate:.0%} of {after.attempts} webhooks fail after the switch ({evidence.before.rate:.0%} before)"
        )
    return f"{after.beats} healthy beats of the new generation"


def _verdict(evidence: Evidence, result: Result, explanation: str) -> Verdict:
    return Verdict(
        result, explanation, evidence.after.beats, evidence.before.rate, evidence.after.rate, evidence.control.rate
    )


def lower_bound(successes: int, trials: int) -> float:
    """Wilson's one-sided 99 % lower bound of a share."""
    if trials <= 0:
        return 0.0
    share, z2 = successes / trials, ONE_SIDED_99**2
    centre = share + z2 / (2 * trials)
    spread = ONE_SIDED_99 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z2 / trials))


def clearly_below(after: Sums, before: Sums) -> bool:
    """Whether the failure rate fell by more than chance (one-sided 99 %); true when none failed before."""
    if not before.attempts or before.rate <= after.rate:
        return before.attempts == 0 or before.failures == 0
    pooled = (after.failures + before.failures) / (after.attempts + before.attempts)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / after.attempts + 1 / before.attempts))
    return before.rate - after.rate > ONE_SIDED_99 * spread
