"""The record of an attempt, its states with owner and end, what can be observed of it, and what a change brings about.

Rule: no state without an owner and an end. `OWNERS` is read by the sweeps; a live attempt always has a deadline, except
`unconfirmed`, which pages an operator and ends when the agent is heard. An observation is a plain record of what was
seen, maybe late or twice; what it means is decided by the machine alone.
"""

import enum
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from services.patcher.evidence import Probe
from services.patcher.policy import Action, Reply, Severity
from services.patcher.verdict import Verdict

HELD_LIMIT = timedelta(hours=1)
QUEUE_LIMIT = timedelta(hours=24)  # for a free sandbox; what runs is bounded by whoever runs it
GRACE = timedelta(seconds=15)  # what a word may be late, on top of the bound it reports on
PERMIT_AGE = timedelta(seconds=5)  # an agent acts on a permit for no longer
SWITCH_TIME = timedelta(seconds=45)  # stop, swap, start, first probe
TRIES = 3


class Purpose(enum.StrEnum):
    """What a command is for."""

    SWITCH = "switch"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    HEALTH_CHECK = "health_check"


@dataclass(frozen=True)
class Staged:
    """What the sandbox saw."""

    passed: bool
    tests_passed: int
    tests_run: int
    seconds: float
    cached: bool = False
    failures: tuple[str, ...] = ()
    network: str = ""
    user: str = ""
    files: str = ""
    # none, user or namespaces.
    isolation: str = ""
    # False when nothing ran, since the host gives less isolation than the policy asks for.
    ran: bool = True
    # A failure is looked at once more; what the first run said is kept.
    runs: int = 1
    first_failure: str = ""


class State(enum.StrEnum):
    """Where an attempt stands."""

    PENDING = "pending"
    STAGING = "staging"
    STAGED = "staged"
    AWAITING_APPROVAL = "awaiting_approval"
    APPLYING = "applying"
    PROBATION = "probation"
    COMMITTING = "committing"
    SUCCESS = "success"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class Owner:
    """Who moves a state on, how long it may last, and what follows when nobody does."""

    owner: str
    lasts: str
    then: str


OWNERS = {
    State.PENDING: Owner("policy", "1 h held", "cancelled"),
    State.STAGING: Owner("staging runner", "staging_timeout from the start of a run, two runs; 24 h queued", "failed"),
    State.STAGED: Owner("policy", "1 h held", "cancelled"),
    State.AWAITING_APPROVAL: Owner("approvers", "approval_timeout", "cancelled; refused by one no"),
    State.APPLYING: Owner(
        "agent", "apply timeout; with a permit dead-man + grace", "failed, with a permit unconfirmed"
    ),
    State.PROBATION: Owner("verdict", "health timeout, at most dead-man - margin", "rolling_back"),
    State.COMMITTING: Owner("agent", "dead-man + grace", "unconfirmed"),
    State.ROLLING_BACK: Owner("agent", "dead-man + grace", "unconfirmed"),
    State.UNCONFIRMED: Owner("a person, and the agent's next beat", "until heard or retired", "success or rolled_back"),
}
LIVE = frozenset(OWNERS)
FINAL = frozenset(State) - LIVE
UNPERMITTED = frozenset({State.PENDING, State.STAGING, State.STAGED, State.AWAITING_APPROVAL})
# From the command that switches to the agent's last word.
IN_FLIGHT = frozenset({State.APPLYING, State.PROBATION, State.COMMITTING, State.ROLLING_BACK, State.UNCONFIRMED})


@dataclass(frozen=True)
class Bounds:
    """The times of one attempt in seconds, fixed when it is created."""

    dead_man: float = 100.0
    staging_timeout: float = 300.0
    health_timeout: float = 90.0
    apply_timeout: float = 120.0

    @property
    def margin(self) -> float:
        """How long before the dead-man a commit is sent at the latest: 10 s, less for a short dead-man."""
        return min(10.0, max(1.0, 0.2 * self.dead_man))

    @property
    def probation(self) -> float:
        """How long after the switch a verdict may take."""
        return min(self.health_timeout, self.dead_man - self.margin)


@dataclass(frozen=True)
class Attempt:
    """One attempt. Times are aware UTC; `generation`, `fence` and `command` are those of its last switch command.

    An attempt of a rollout names it, and has neither incident nor decision.
    """

    id: str
    incident: str
    decision: str
    plugin: str
    merchant: str
    package: str
    action: Action
    from_release: str
    to_release: str
    digest: str
    severity: Severity
    symptom: str
    round: int
    confidence: float
    bounds: Bounds
    create_time: datetime
    update_time: datetime
    deadline_time: datetime | None
    state: State = State.PENDING
    reason: str = ""
    held_by: str = ""
    permitted: bool = False
    permit_time: datetime | None = None
    generation: int = 0
    fence: int = 0
    command: str = ""
    from_generation: int = 0
    tries: int = 0
    refusals: int = 0
    rollbacks: int = 0
    commit_sent: bool = False
    switch_time: datetime | None = None
    end_time: datetime | None = None
    staging: Staged | None = None
    verdict: Verdict | None = None
    probe: Probe = Probe.NOT_REQUESTED
    failing_inputs: tuple[str, ...] = ()
    traceparent: str = ""
    rollout: str = ""
    # Hash of the plan people are asked about, or have approved; empty while nobody is asked.
    plan_hash: str = ""
    configuration: str = ""
    # Whether the playbook names what it brings, for this package and symptom.
    named: bool = False
    # The person who wants it (operators/{operator}); empty for a decision's and a rollout's.
    author: str = ""

    @property
    def target(self) -> str:
        """The version it brings: of a configuration, or of a release."""
        return self.configuration if self.action is Action.CONFIG_FIX else self.to_release

    @property
    def other_slot(self) -> bool:
        """Whether this goes back to whatever the agent has in its other slot, for lack of a known release."""
        return self.action is Action.ROLLBACK and not self.to_release

    @property
    def low_evidence(self) -> bool:
        """Whether nothing spoke against it when it was committed, and nothing much for it either."""
        return self.verdict is not None and self.verdict.low_evidence

    @property
    def commit_deadline(self) -> datetime:
        """The latest moment at which a commit may still be sent."""
        return (self.switch_time or self.update_time) + timedelta(seconds=self.bounds.probation)

    @property
    def final_receipt_deadline(self) -> datetime:
        """When the agent's final word is overdue, whatever it decided by itself."""
        since = self.switch_time or ((self.permit_time or self.update_time) + PERMIT_AGE + SWITCH_TIME)
        return since + timedelta(seconds=self.bounds.dead_man) + GRACE


class AttemptEvent(enum.StrEnum):
    """The facts an attempt records."""

    CREATED = "attempt_created"
    REFUSED = "attempt_refused"
    HELD = "attempt_held"
    STAGED = "attempt_staged"
    APPLIED = "attempt_applied"
    COMMITTING = "attempt_committing"
    SUCCEEDED = "attempt_succeeded"
    ROLLING_BACK = "attempt_rolling_back"
    ROLLED_BACK = "attempt_rolled_back"
    ROLLBACK_FAILED = "attempt_rollback_failed"
    UNCONFIRMED = "attempt_unconfirmed"
    FAILED = "attempt_failed"
    CANCELLED = "attempt_cancelled"


@dataclass(frozen=True)
class Fact:
    """A fact, with what cannot be read from the attempt itself."""

    event: AttemptEvent
    reason: str
    actor: str = ""
    gate: str = ""
    failure: str = ""
    dead_man: bool = False
    never_switched: bool = False
    healed_by_itself: bool = False


class ErrandKind(enum.StrEnum):
    """What an attempt wants done outside."""

    STAGE = "stage"
    ISSUE_COMMAND = "issue_command"
    WITHDRAW_COMMAND = "withdraw_command"
    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True)
class Errand:
    """Something to do outside; `key` makes it unique."""

    kind: ErrandKind
    key: str
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transition:
    """A row of the history."""

    from_state: State
    to_state: State
    observation: str
    reason: str


@dataclass(frozen=True)
class Change:
    """What follows from an observation; without a step nothing changed that people need to see."""

    attempt: Attempt
    facts: tuple[Fact, ...] = ()
    errands: tuple[Errand, ...] = ()
    transitions: tuple[Transition, ...] = ()

    def then(self, other: "Change") -> "Change":
        """This change followed by another that started from its attempt."""
        return replace(
            other,
            facts=self.facts + other.facts,
            errands=self.errands + other.errands,
            transitions=self.transitions + other.transitions,
        )


@dataclass(frozen=True)
class ActorRequest:
    """What somebody wants, and why."""

    actor: str
    reason: str


@dataclass(frozen=True)
class GatesEvaluated:
    """The policy was asked whether the attempt may go on; `plan` is the hash of what people would be asked about."""

    reply: Reply
    needs_staging: bool
    plan_hash: str = ""


@dataclass(frozen=True)
class PlanApproved:
    """People have approved the plan, and the policy was asked once more."""

    reply: Reply
    plan_hash: str


class PlanRejected(ActorRequest):
    """A person said no to the plan."""


@dataclass(frozen=True)
class AutomationStopped:
    """A kill switch or a storm came while the command had no permit yet."""

    gate: str
    reason: str


@dataclass(frozen=True)
class StagingFinished:
    """The sandbox has a result."""

    result: Staged


@dataclass(frozen=True)
class StagingLost:
    """No result came from any try."""

    reason: str


@dataclass(frozen=True)
class CommandIssued:
    """A command of this attempt was written down. `number` tells the tries of one purpose apart."""

    purpose: Purpose
    number: int
    command: str
    generation: int
    fence: int


@dataclass(frozen=True)
class CommandLost:
    """A command could not be written down in any try; it may exist all the same."""

    purpose: Purpose
    number: int
    reason: str


@dataclass(frozen=True)
class Permitted:
    """The switch was authorised."""

    command: str
    generation: int
    fence: int


@dataclass(frozen=True)
class VerdictReached:
    """The verdict on what probation has shown so far."""

    verdict: Verdict


@dataclass(frozen=True)
class DeadlinePassed:
    """The deadline of the state is over."""


class CancelRequested(ActorRequest):
    """A person, a preempting attempt or the end of the incident wants this to stop."""


@dataclass(frozen=True)
class IllnessOver:
    """The incident ended before the switch: the plugin is well without the remedy."""

    reason: str


class RollbackRequested(ActorRequest):
    """A person or a kill switch wants the remedy taken back."""
