"""The record of the policy, what may wish to pass it, and what its gates can answer.

Rule: times are durations, shares are in percent. Every field that people can edit has effect on a gate.
"""

import enum
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final

from services.patcher.approvals import Quorum
from services.patcher.freeze import FreezeWindow

KILL_SWITCH = "KILL_SWITCH"
PLUGIN_BUSY = "PLUGIN_BUSY"
GLOBAL = "global"


class Severity(enum.IntEnum):
    """From the least to the most harmful; 0 is unknown and passes no cap."""

    UNKNOWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Isolation(enum.IntEnum):
    """How far a sandbox keeps a release apart, from the least; 0 is no level.

    `NONE`: limits only, as the service's own user. `USER`: a separate user. `NAMESPACES`: also no network but loopback,
    and a view of the files of its own.
    """

    UNKNOWN = 0
    NONE = 1
    USER = 2
    NAMESPACES = 3

    @property
    def word(self) -> str:
        """As it is written everywhere: none, user, namespaces."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Isolation":
        """The level of a word. Raises ValueError for another."""
        try:
            return cls[word.upper()]
        except (KeyError, AttributeError):
            raise ValueError(f"{word!r} is no isolation") from None


class Action(enum.StrEnum):
    """What an attempt carries out."""

    PATCH = "patch"
    CONFIG_FIX = "config_fix"
    ROLLBACK = "rollback"
    RESTART = "restart"


# What brings something new to a plugin; the others return to what ran there before.
CAPPED = frozenset({Action.PATCH, Action.CONFIG_FIX})
# Gates that end an attempt; the others make it wait.
POLICY_GATES = frozenset(
    {"AUTOPATCH_DISABLED", "ALLOW_LIST", "SEVERITY", "CONFIDENCE", "STAGING", "ISOLATION", "ATTEMPTS"}
)
# Gates that make an attempt wait although its command was sent already.
HOLDING_GATES = frozenset({KILL_SWITCH, "STORM", "FREEZE", "CANARY", "BUDGET", "APPROVAL"})


@dataclass(frozen=True)
class Policy:
    """The policy in force; times are durations, thresholds of rates are in percent."""

    version: int = 1
    autopatch_enabled: bool = True
    autopatch_merchants: tuple[str, ...] = ()
    autopatch_max_severity: Severity = Severity.MEDIUM
    min_confidence: float = 0.75
    require_staging: bool = True
    staging_timeout: timedelta = timedelta(seconds=300)
    # What a sandbox must give at least before anything of a release runs in it.
    min_isolation: Isolation = Isolation.NAMESPACES
    health_check_timeout: timedelta = timedelta(seconds=90)
    health_check_interval: timedelta = timedelta(seconds=3)
    require_multisig_for_major: bool = True
    require_multisig_for_high_impact: bool = True
    multisig_quorum: int = 2
    rollback_error_rate_threshold: float = 10.0
    rollback_heartbeat_missed: timedelta = timedelta(seconds=120)
    learning_enabled: bool = True
    canary_percentage: int = 0
    canary_merchants: tuple[str, ...] = ()
    # One seat per role, each filled by a person of its own; empty approvers: whoever holds a seat's role.
    multisig_roles: tuple[str, ...] = ("approver",)
    multisig_approvers: tuple[str, ...] = ()
    approval_timeout: timedelta = timedelta(hours=1)
    # A plan that touches more plugins than this at once is of high impact.
    high_impact_plugins: int = 50
    freeze_windows: tuple[FreezeWindow, ...] = ()
    # In flight at once: the smaller of the two, and at least one.
    max_in_flight: int = 16
    max_in_flight_percentage: float = 20.0
    # How often one plugin may be touched within the window.
    max_attempts: int = 6
    attempts_window: timedelta = timedelta(hours=24)
    update_time: datetime | None = None
    updated_by: str = ""
    reason: str = ""

    @property
    def quorum(self) -> Quorum:
        """Whose approval a plan needs that needs any."""
        return Quorum(self.multisig_quorum, self.multisig_roles, self.multisig_approvers)


BOOKKEEPING: Final = frozenset({"version", "update_time", "updated_by", "reason"})
EDITABLE: Final = tuple(field.name for field in fields(Policy) if field.name not in BOOKKEEPING)


@dataclass(frozen=True)
class GateRequest:
    """What wants to pass: an attempt, at one of its steps. `staged` is None before staging is due."""

    plugin: str
    merchant: str
    action: Action
    severity: Severity
    confidence: float
    staged: bool | None


@dataclass(frozen=True)
class Probation:
    """A plugin after its switch: seconds since it, the last look and the last beat; its failure rate in percent."""

    since: float
    last_look: float = 60.0
    silent: float = 0.0
    error_rate: float = 0.0
    healthy: bool = False


@dataclass(frozen=True)
class GateInputs:
    """Everything the gates look at. `engaged` are kill switches, `storm` is why automation pauses (empty: no storm).

    `plugins` counts what the plan touches, `proven` says whether `to_release` has already healed a plugin, `named`
    whether the playbook names this change, `staging` is for how many seconds the sandbox has run (None: it does not),
    `isolation` what it gave (None: nothing yet), `fleet` counts the package's active plugins, `recent_permits` holds
    when the plugin was permitted a switch lately, `approved` whether people approved exactly this plan, and `probation`
    is there after the switch.
    """

    request: GateRequest
    now: datetime
    engaged: frozenset[str] = frozenset()
    storm: str = ""
    from_release: str = ""
    to_release: str = ""
    plugins: int = 1
    proven: bool = False
    named: bool = False
    staging: float | None = None
    isolation: Isolation | None = None
    in_flight: int = 0
    fleet: int = 1
    recent_permits: tuple[datetime, ...] = ()
    approved: bool = False
    probation: Probation | None = None


@dataclass(frozen=True)
class Allow:
    """Go on."""


@dataclass(frozen=True)
class Hold:
    """Wait where you are until the gate opens."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Refuse:
    """No; a person is needed."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Ask:
    """Wait until these people have approved the plan."""

    gate: str
    reason: str
    quorum: Quorum
    within: timedelta


@dataclass(frozen=True)
class RollBack:
    """Roll back what was applied."""

    gate: str
    reason: str


Answer = Allow | Hold | Refuse
Reply = Allow | Hold | Refuse | Ask | RollBack


def scopes(plugin: str, merchant: str, action: str) -> tuple[str, str, str, str]:
    """The kill switches that cover a wish, in the order in which their locks are taken."""
    return GLOBAL, f"merchants/{merchant}", f"plugins/{plugin}", f"actions/{action}"
