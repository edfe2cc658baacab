"""The record of a rollout, its states with owner and end, and what a change gives rise to.

Rule: no state without an owner and an end. `OWNERS` is read by the sweeps; a rollout that is not final always has a
deadline. Of its plugins it keeps counts per wave; the plugins themselves are rows of their own (`members`).
"""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from libs.common.errors import Invalid
from services.patcher.rollout.concurrency import Concurrency
from services.patcher.rollout.judging import Judgement, Rules
from services.patcher.rollout.members import (
    COUNTED_AGAINST,
    IN_FLIGHT,
    SETTLED,
    Member,
    MemberObservation,
    MemberState,
    Tallies,
)
from services.patcher.sequential import Counts


class State(enum.StrEnum):
    """Where a rollout stands."""

    PENDING = "pending"
    RUNNING = "running"
    SOAKING = "soaking"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    HALTED = "halted"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Owner:
    """Who moves a state on, how long it may last, and what follows when nobody does."""

    owner: str
    lasts: str
    then: str


OWNERS = {
    State.PENDING: Owner("policy and approvers", "start_within", "aborted"),
    State.RUNNING: Owner("pace: attempts and their deadlines", "stall, since the last result", "paused"),
    State.SOAKING: Owner(
        "the clock",
        "soak, and stall for plugins that are watched",
        "running (next wave), succeeded, or paused when insufficient",
    ),
    State.PAUSED: Owner("a person", "pause_limit", "aborted; the wave is rolled back when it was in doubt"),
    State.ROLLING_BACK: Owner("agents", "roll_back_limit", "halted or aborted, with those not heard listed"),
}
LIVE = frozenset(OWNERS)
FINAL = frozenset(State) - LIVE


@dataclass(frozen=True)
class Bounds:
    """The times of a rollout, and how many plugins must have been exposed before a wave may pass."""

    start_within: timedelta = timedelta(hours=24)
    soak: timedelta = timedelta(minutes=10)
    stall: timedelta = timedelta(hours=1)
    pause_limit: timedelta = timedelta(days=7)
    roll_back_limit: timedelta = timedelta(minutes=30)
    exposure: int = 5


@dataclass(frozen=True)
class Rollout:
    """One rollout of a release or a configuration to many plugins. Times are aware UTC; waves count from 1.

    `control` belongs to the wave, `doubted` says that the plane paused it for want of evidence, `ends_as` is what
    follows when rolling back is done.
    """

    id: str
    package: str
    target: str
    tallies: Tallies
    create_time: datetime
    update_time: datetime
    deadline_time: datetime | None
    budget: int = 16
    rules: Rules = field(default_factory=Rules)
    bounds: Bounds = field(default_factory=Bounds)
    state: State = State.PENDING
    wave: int = 1
    concurrency: Concurrency = field(default_factory=Concurrency)
    control: Counts = field(default_factory=Counts)
    reason: str = ""
    doubted: bool = False
    # The wave has soaked, and waits for plugins that are watched.
    waited: bool = False
    closed: bool = False
    final_state: State = State.ABORTED
    judgement: Judgement | None = None
    end_time: datetime | None = None

    @property
    def started_waves(self) -> Tallies:
        """The waves up to the current one."""
        return self.tallies[: self.wave]

    def count(self, *states: MemberState) -> int:
        """How many plugins of the whole rollout are in one of these states."""
        return sum(tally.of(*states) for tally in self.tallies)

    @property
    def in_flight(self) -> int:
        """How many attempts run."""
        return self.count(*IN_FLIGHT)

    @property
    def waiting(self) -> int:
        """How many plugins of the waves begun so far have not been started."""
        return sum(tally.of(MemberState.WAITING) for tally in self.started_waves)


def check(budget: int, rules: Rules, bounds: Bounds) -> None:
    """Raises Invalid, naming field, rule and remedy, for a value that makes no sense."""
    limits = {
        "budget": (1 <= budget <= 10_000, "1 to 10,000 plugins"),
        "alpha": (0.0 < rules.alpha <= 0.1, "above 0 and at most 0.1"),
        "floor": (0.0 < rules.floor <= 0.5, "above 0 and at most 0.5"),
        "doubt": (1.0 < rules.doubt < rules.threshold, f"above 1 and below {rules.threshold:.0f}"),
        "exposure": (1 <= bounds.exposure <= 10_000, "1 to 10,000 plugins"),
        "soak": (timedelta() <= bounds.soak <= timedelta(days=30), "0 s to 30 days"),
    }
    for name in ("start_within", "stall", "pause_limit", "roll_back_limit"):
        limits[name] = (timedelta() < getattr(bounds, name) <= timedelta(days=90), "above 0 s and at most 90 days")
    for name, (good, rule) in limits.items():
        if not good:
            raise Invalid(f"rollout.{name} must be {rule}", reason="ROLLOUT_FIELD", field=f"rollout.{name}", rule=rule)


class Scope(enum.StrEnum):
    """What is rolled back when a rollout ends early."""

    NOTHING = "nothing"
    WAVE = "wave"
    ALL = "all"


@dataclass(frozen=True)
class ActorRequest:
    """What somebody wants, and why."""

    actor: str
    reason: str


@dataclass(frozen=True)
class Approved:
    """Policy and approvers let the rollout begin."""


class Rejected(ActorRequest):
    """Policy or an approver said no."""


@dataclass(frozen=True)
class ControlGroupUpdated:
    """The control group so far: plugins not switched, watched for as long as a probation, since the wave began."""

    control: Counts


class PauseRequested(ActorRequest):
    """A person or a gate wants nothing more to be started."""


class ResumeRequested(ActorRequest):
    """A person wants it to go on where it is."""


class PromoteRequested(ActorRequest):
    """A person wants the next wave now, without more soaking or evidence."""


@dataclass(frozen=True)
class AbortRequested(ActorRequest):
    """A person wants it to end, with so much of it taken back."""

    scope: Scope = Scope.WAVE


@dataclass(frozen=True)
class BudgetChanged:
    """The in-flight budget is another."""

    budget: int
    actor: str
    reason: str


@dataclass(frozen=True)
class Superseded:
    """A newer rollout takes over: plugins that return later are its business."""

    by: str


@dataclass(frozen=True)
class Tick:
    """Time passed."""


OperatorRequest = PauseRequested | ResumeRequested | PromoteRequested | AbortRequested | BudgetChanged
Observation = MemberObservation | OperatorRequest | Approved | Rejected | ControlGroupUpdated | Superseded | Tick


class RolloutEvent(enum.StrEnum):
    """The facts a rollout records."""

    CREATED = "rollout_created"
    WAVE_STARTED = "rollout_wave_started"
    WAVE_PASSED = "rollout_wave_passed"
    PAUSED = "rollout_paused"
    RESUMED = "rollout_resumed"
    PROMOTED = "rollout_promoted"
    BUDGET_CHANGED = "rollout_budget_changed"
    HALTED = "rollout_halted"
    ABORTED = "rollout_aborted"
    ROLLED_BACK = "rollout_rolled_back"
    SUCCEEDED = "rollout_succeeded"
    CLOSED = "rollout_closed"


@dataclass(frozen=True)
class Fact:
    """A fact, with what cannot be read from the rollout itself."""

    event: RolloutEvent
    reason: str
    wave: int
    actor: str = ""


@dataclass(frozen=True)
class StartMembers:
    """Start up to `most` waiting plugins of the waves up to `wave`, lowest wave and rank first, each with a slot.

    Carried out under the rollout's lock, in the transaction that saves the change: each plugin comes back as
    `Started`, and gets its attempt when its row comes out as started.
    """

    wave: int
    most: int


@dataclass(frozen=True)
class CancelUnpermitted:
    """Cancel the attempts of this rollout that have no permit yet; they come back as `NotSwitched`, again."""

    reason: str


@dataclass(frozen=True)
class RollBack:
    """Take everything back that the waves from `first` to `last` touched (`members.TOUCHED`), and mark it so."""

    first: int
    last: int
    reason: str


Effect = StartMembers | CancelUnpermitted | RollBack


@dataclass(frozen=True)
class Transition:
    """A row of the history."""

    from_state: State
    to_state: State
    wave: int
    observation: str
    reason: str


@dataclass(frozen=True)
class Change:
    """What follows from an observation; `member` is the plugin's row when the observation was a word about one."""

    rollout: Rollout
    member: Member | None = None
    facts: tuple[Fact, ...] = ()
    effects: tuple[Effect, ...] = ()
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True)
class Figures:
    """What people see of a rollout. Rates are 0 to 1 of the plugins with a result, and are reported, not gates."""

    plugins: int
    healthy: int
    counted_against: int
    in_flight: int
    waiting: int
    offline: int
    watched: int
    skipped: int
    rolled_back: int
    success_rate: float
    rollback_rate: float


def figures(rollout: Rollout) -> Figures:
    """The rollout in numbers."""
    settled = rollout.count(*SETTLED)
    exposed = sum(tally.exposed for tally in rollout.tallies)
    healthy = rollout.count(MemberState.HEALTHY)
    returned = rollout.count(MemberState.REVERTED, MemberState.ROLLED_BACK)
    return Figures(
        plugins=sum(tally.of(*MemberState) for tally in rollout.tallies),
        healthy=healthy,
        counted_against=rollout.count(*COUNTED_AGAINST),
        in_flight=rollout.in_flight,
        waiting=rollout.count(MemberState.WAITING),
        offline=rollout.count(MemberState.OFFLINE),
        watched=rollout.count(MemberState.WATCHED),
        skipped=rollout.count(MemberState.SKIPPED),
        rolled_back=rollout.count(MemberState.ROLLED_BACK),
        success_rate=healthy / settled if settled else 0.0,
        rollback_rate=returned / exposed if exposed else 0.0,
    )
