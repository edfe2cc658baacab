"""A decision answers one round of one incident, and nothing is left out of it.

Rule: what is known goes in, every remedy that was considered comes out with its score, its confidence and the
probability with which it was chosen; the ones that were not eligible carry the reason. A decision is `pending` while
the external SIRA is being asked, then `made`; it is `superseded` when its incident ended or moved on before that.
"""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class Action(enum.StrEnum):
    """What a decision can ask for."""

    PATCH = "patch"
    CONFIG_FIX = "config_fix"
    ROLLBACK = "rollback"
    RESTART = "restart"
    NOTIFY_OPS = "notify_ops"
    NO_ACTION = "no_action"


ACTIONS = frozenset(Action)
# These change nothing on a plugin, so they are always safe and may be chosen again.
PASSIVE = frozenset({Action.NOTIFY_OPS, Action.NO_ACTION})

SILENCE = "heartbeat_missed"
INCOMPATIBILITY = "version_incompatibility"
# Its figure for requirements of the running release; what was only refused has none.
UNMET = "unmet_requirements"
# What only a person can mend, with why: no command reaches the plugin, or the agent refuses every change.
FOR_PEOPLE = {
    SILENCE: "silence always goes to a person",
    "plugin_away": "a plugin that was stopped is started by a person",
    "agent_degraded": "an agent that its host hinders refuses every change until a person has mended the host",
}
SYMPTOMS = frozenset(
    {
        *FOR_PEOPLE,
        "plugin_down",
        "webhook_fail_rate",
        "error_spike",
        "signature_invalid",
        INCOMPATIBILITY,
        "config_drift",
        "telemetry_anomaly",
    }
)


class Origin(enum.StrEnum):
    """The rung of the ladder a candidate comes from, in the order of the ladder."""

    PLAYBOOK = "playbook"
    LEARNED = "learned"
    SIRA = "sira"
    FALLBACK = "fallback"


class State(enum.StrEnum):
    """How far a decision got."""

    PENDING = "pending"
    MADE = "made"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Owner:
    """Who moves a state on, by when (a column of the decision), and to where."""

    owner: str
    deadline: str
    next: tuple[State, ...]


OWNERS: dict[State, Owner] = {
    State.PENDING: Owner("errand ask_sira, then sweep overdue", "deadline_time", (State.MADE, State.SUPERSEDED)),
    State.MADE: Owner("nobody: final", "", ()),
    State.SUPERSEDED: Owner("nobody: final", "", ()),
}


@dataclass(frozen=True)
class Remedy:
    """An action and, where it has one, the version it aims at: of a release, for config_fix of a configuration."""

    action: str
    release: str = ""

    def __str__(self) -> str:
        """In words: `patch to 1.2.3`, `restart`."""
        return f"{self.action} to {self.release}" if self.release else self.action


@dataclass(frozen=True)
class Tried:
    """A remedy that did not heal this incident, and how it ended."""

    action: str
    release: str
    outcome: str = ""
    reason: str = ""

    def covers(self, remedy: Remedy) -> bool:
        """Whether `remedy` is what was tried; a release that one side leaves open matches any."""
        if self.action != remedy.action:
            return False
        return not self.release or not remedy.release or self.release == remedy.release


@dataclass(frozen=True)
class DecisionInputs:
    """What is known when a remedy is chosen. `severity` is low, medium, high or critical; `release` is what runs."""

    symptom: str
    severity: str
    package: str
    release: str
    round: int = 1
    generation: int = 0
    summary: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    failing_inputs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    config_digest: str = ""
    tried: tuple[Tried, ...] = ()
    act_by: datetime | None = None


@dataclass(frozen=True)
class Opinion:
    """What the external SIRA answered; one more candidate, never an order."""

    action: str
    release: str
    confidence: float
    why: str = ""
    model: str = ""


@dataclass(frozen=True)
class Candidate:
    """One remedy that was considered.

    `score` is the expected rate of success, `confidence` its lower bound, `propensity` the probability with
    which it was chosen; `excluded` says why it was not eligible. `tier` orders candidates: the lower is asked first.
    """

    remedy: Remedy
    origin: Origin
    tier: tuple[int, ...]
    score: float
    confidence: float
    why: str
    alpha: float = 0.0
    beta: float = 0.0
    propensity: float = 0.0
    excluded: str = ""


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, all others, and whether it is sure enough to need no further opinion."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    confident: bool
    explanation: str
    reasoning: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """The remedy chosen for one round of one incident, as it is stored."""

    id: str
    incident: str
    plugin: str
    merchant: str
    state: State
    inputs: DecisionInputs
    choice: Choice
    versions: dict[str, str]
    features: dict[str, str]
    cause: str
    traceparent: str
    create_time: datetime
    decide_time: datetime | None = None
    deadline_time: datetime | None = None
