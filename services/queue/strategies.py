"""Strategies: ways to resolve reports of one type, chosen by verified success and by nothing else.

Rule: a strategy's record is a Beta posterior of imagined outcomes (its prior) and verified ones; its confidence is the
lower 90 % bound. It begins as a candidate, is promoted to active when it has proved itself, demoted when it has not,
and retired when it stays so; a demoted one that proves itself comes back, a retired one does not. Among those that fit
a report (type, package, own patterns), what can be done goes before what cannot, what is made for the package before
what is for any, then the better score, then the name. What was tried for this report is left out. A strategy that
writes is only worked when a person approved it, and never when a model alone classified the report; where the one made
for the package only lacks that approval, it is asked for instead of trying something general.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from libs.common.beta_posterior import NO_OUTCOMES, Outcomes
from services.queue.patterns import Pattern
from services.queue.report import Blocker, Origin, Report

STATES = ("candidate", "active", "demoted", "retired")
COMPARISONS = frozenset({"equals", "at_least", "at_most", "contains", "absent"})
PLACEHOLDERS = ("plugin", "label", "merchant", "package", "release")

BASE_SECONDS = 60.0
READ_SECONDS = 60.0
WRITE_SECONDS = 180.0


@dataclass(frozen=True)
class Step:
    """One call of a tool. `arguments` is a JSON object whose strings may hold {plugin} and its like, nothing else."""

    tool: str
    arguments: str = "{}"
    write: bool = False
    purpose: str = ""


@dataclass(frozen=True)
class Check:
    """How a worker knows that it helped: a value (JSON) compared with what stands at a dotted path of the answer."""

    step: Step
    path: str
    comparison: str
    value: str = "null"


@dataclass(frozen=True)
class Strategy:
    """A way to resolve reports of `type`, of `package` (empty: any), whose text fits one of `patterns` (none: all)."""

    name: str
    title: str
    type: str
    steps: tuple[Step, ...]
    check: Check
    prior: Outcomes
    package: str = ""
    auto_fixable: bool = True
    patterns: tuple[Pattern, ...] = ()
    declared_seconds: float = 0.0

    @property
    def calls(self) -> tuple[Step, ...]:
        """Every call, the check's included."""
        return (*self.steps, self.check.step)

    @property
    def tools(self) -> tuple[str, ...]:
        """Every tool it needs, once, in order of use."""
        return tuple(dict.fromkeys(step.tool for step in self.calls))

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return any(step.write for step in self.calls)

    @property
    def estimated_seconds(self) -> float:
        """As stated, or a minute, another for each reading tool, and three for each that writes."""
        if self.declared_seconds:
            return self.declared_seconds
        writing = {step.tool for step in self.calls if step.write}
        return BASE_SECONDS + WRITE_SECONDS * len(writing) + READ_SECONDS * (len(self.tools) - len(writing))


@dataclass(frozen=True)
class StrategyStatus:
    """What became of a strategy so far: verified outcomes, its state, and whether a person approved its writes."""

    successes: int = 0
    failures: int = 0
    state: str = "candidate"
    approved: bool = False


NEW = StrategyStatus()


@dataclass(frozen=True)
class StatusRules:
    """The thresholds of a status, as data: verified successes or failures needed, and confidence at least or below."""

    promote_successes: int = 3
    promote_confidence: float = 0.5
    demote_failures: int = 2
    demote_confidence: float = 0.4
    retire_failures: int = 6
    retire_confidence: float = 0.2


@dataclass(frozen=True)
class StatusUpdate:
    """What an outcome makes of a status; `reason` is empty when the state stays."""

    status: StrategyStatus
    reason: str = ""


@dataclass(frozen=True)
class Fit:
    """How well a strategy fits a report. `blocker` says why it cannot be worked now; None when it can."""

    strategy: Strategy
    status: StrategyStatus
    score: float
    explanation: str
    blocker: Blocker | None


@dataclass(frozen=True)
class StrategySet:
    """All strategies with their statuses; a strategy without one is new."""

    strategies: tuple[Strategy, ...]
    rules: StatusRules = field(default_factory=StatusRules)
    statuses: Mapping[str, StrategyStatus] = field(default_factory=dict)

    def named(self, name: str) -> Strategy | None:
        """The strategy with this name, or None."""
        return next((strategy for strategy in self.strategies if strategy.name == name), None)

    def status(self, name: str) -> StrategyStatus:
        """Its status."""
        return self.statuses.get(name, NEW)


# How far a state is trusted beside the confidence itself.
STATE_WEIGHT = {"active": 1.0, "candidate": 0.9, "demoted": 0.5, "retired": 0.0}


def confidence(strategy: Strategy, status: StrategyStatus) -> float:
    """The lower 90 % bound of its chance to help."""
    return (strategy.prior + Outcomes(status.successes, status.failures)).confidence


def judge(strategy: Strategy, status: StrategyStatus, rules: StatusRules, *, success: bool) -> StatusUpdate:
    """The status after one more verified outcome, with the sentence that says why its state changed."""
    counted = replace(status, successes=status.successes + success, failures=status.failures + (not success))
    sure = confidence(strategy, counted)
    state, explanation = _state(counted, sure, rules)
    if state == status.state:
        return StatusUpdate(counted)
    outcomes = f"{counted.successes} verified successes and {counted.failures} failures"
    reason = f"{state} instead of {status.state}: {outcomes} state {sure:.2f}, {explanation}"
    return StatusUpdate(replace(counted, state=state), reason)


def _state(counted: StrategyStatus, sure: float, rules: StatusRules) -> tuple[str, str]:
    if counted.state == "retired":
        return "retired", ""
    if counted.failures >= rules.retire_failures and sure < rules.retire_confidence:
        return "retired", f"below {rules.retire_confidence:.2f} after {rules.retire_failures} failures"
    if counted.failures >= rules.demote_failures and sure < rules.demote_confidence:
        return "demoted", f"below {rules.demote_confidence:.2f}"
    if counted.successes >= rules.promote_successes and sure >= rules.promote_confidence:
        return "active", f"at least {rules.promote_confidence:.2f}"
    return counted.state, ""


def fits(report: Report, type: str, strategy_set: StrategySet, origin: Origin) -> tuple[Fit, ...]:  # noqa: A002 - the word of the wire
    """Every strategy for reports of this type that fits this one, the one to choose first."""
    text = f"{report.type}\n{report.message}".lower()
    found = [
        _fit(report, strategy, strategy_set.status(strategy.name), origin)
        for strategy in strategy_set.strategies
        if strategy.type == type
        and strategy.package in ("", report.package)
        and (not strategy.patterns or any(pattern.found(text) for pattern in strategy.patterns))
    ]
    return tuple(sorted(found, key=_place))


def _place(fit: Fit) -> tuple[bool, bool, bool, bool, float, str]:
    # A yes of a person is all it lacks; for its own package that is worth more than a look at the surroundings.
    blocked = fit.blocker not in (None, Blocker.WRITE_NOT_APPROVED)
    tried = fit.blocker is Blocker.ALL_TRIED
    general = not fit.strategy.package
    return (blocked, tried, general, fit.blocker is not None, -fit.score, fit.strategy.name)


def _fit(report: Report, strategy: Strategy, status: StrategyStatus, origin: Origin) -> Fit:
    sure = confidence(strategy, status)
    blocker = blocker_of(strategy, status, origin, tried=strategy.name in report.tried_strategies)
    score = 0.0 if blocker is Blocker.ALL_TRIED else round(sure * STATE_WEIGHT[status.state], 4)
    parts = [f"{status.state}, states {sure:.2f} after {status.successes} verified successes"]
    parts.append(f"and {status.failures} failures" + _beside(strategy.prior))
    parts.append(f"; made for {strategy.package}" if strategy.package else "; for any package")
    if blocker:
        parts.append(f"; {BLOCKER_TEXT[blocker]}")
    return Fit(strategy, status, score, " ".join(parts).replace(" ;", ";"), blocker)


def _beside(prior: Outcomes) -> str:
    if prior == NO_OUTCOMES:
        return ""
    return f" (beside a prior of {prior.successes:g} and {prior.failures:g})"


BLOCKER_TEXT = {
    Blocker.NO_STRATEGY: "no strategy fits",
    Blocker.ALL_TRIED: "it was tried for this report",
    Blocker.NOT_AUTO_FIXABLE: "it only describes what a person has to do",
    Blocker.WRITE_NOT_APPROVED: "it writes and no person approved it",
    Blocker.MODEL_MAY_NOT_WRITE: "it writes and only a model said what the report is",
    Blocker.RETIRED: "it is retired",
    Blocker.UNSURE: "nobody is sure what the report is",
}


def blocker_of(strategy: Strategy, status: StrategyStatus, origin: Origin, *, tried: bool) -> Blocker | None:
    """Why this strategy cannot be worked now, or None."""
    if tried:
        return Blocker.ALL_TRIED
    if status.state == "retired":
        return Blocker.RETIRED
    if not strategy.auto_fixable:
        return Blocker.NOT_AUTO_FIXABLE
    if strategy.writes and not status.approved:
        return Blocker.WRITE_NOT_APPROVED
    # A model reads text that strangers wrote; whatever it was talked into may at most look.
    if strategy.writes and origin is Origin.MODEL:
        return Blocker.MODEL_MAY_NOT_WRITE
    return None
