"""Policy: the bounds people set for automation, and the gates that keep them.

Rule: every attempt passes every gate again at each step that brings it nearer to a plugin. A kill switch holds: the
attempt waits where it is and goes on when the switch is released. Every other gate refuses, with its name and a
reason for people. The severity cap is about bringing something new to a plugin (patch, config_fix); restart and
rollback return to what ran there before, so plugin_down (high) can be healed under the default cap. Rolling an
attempt back passes no gate at all.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from libs.common.errors import Invalid

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


class Action(enum.StrEnum):
    """What an attempt carries out."""

    PATCH = "patch"
    CONFIG_FIX = "config_fix"
    ROLLBACK = "rollback"
    RESTART = "restart"


CAPPED = frozenset({Action.PATCH, Action.CONFIG_FIX})
POLICY_GATES = frozenset(
    {"AUTOPATCH_DISABLED", "CONFIG_FIX_UNAVAILABLE", "ALLOW_LIST", "SEVERITY", "CONFIDENCE", "STAGING"}
)


@dataclass(frozen=True)
class Policy:
    """The policy in force; times are durations, the rollback threshold is in percent."""

    version: int = 1
    autopatch_enabled: bool = True
    autopatch_merchants: tuple[str, ...] = ()
    autopatch_max_severity: Severity = Severity.MEDIUM
    min_confidence: float = 0.75
    require_staging: bool = True
    staging_timeout: timedelta = timedelta(seconds=300)
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
    update_time: datetime | None = None
    updated_by: str = ""
    reason: str = ""


BOOKKEEPING = frozenset({"version", "update_time", "updated_by", "reason"})
EDITABLE = tuple(field.name for field in fields(Policy) if field.name not in BOOKKEEPING)


@dataclass(frozen=True)
class Wish:
    """What wants to pass: an attempt, at one of its steps. `staged` is None before staging is due."""

    plugin: str
    merchant: str
    action: Action
    severity: Severity
    confidence: float
    staged: bool | None


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


Answer = Allow | Hold | Refuse


def scopes(plugin: str, merchant: str, action: str) -> tuple[str, str, str, str]:
    """The kill switches that cover a wish, in the order in which their locks are taken."""
    return GLOBAL, f"merchants/{merchant}", f"plugins/{plugin}", f"actions/{action}"


def gate(policy: Policy, engaged: Collection[str], wish: Wish) -> Answer:
    """Asks every gate, the kill switches first."""
    covering = [scope for scope in scopes(wish.plugin, wish.merchant, wish.action) if scope in engaged]
    if covering:
        return Hold(KILL_SWITCH, f"the kill switch {covering[0]} is engaged")
    if not policy.autopatch_enabled:
        return Refuse("AUTOPATCH_DISABLED", "automatic remedies are switched off in the policy")
    if wish.action is Action.CONFIG_FIX:
        return Refuse("CONFIG_FIX_UNAVAILABLE", "configuration cannot be mended automatically yet")
    if policy.autopatch_merchants and wish.merchant not in policy.autopatch_merchants:
        return Refuse("ALLOW_LIST", f"merchant {wish.merchant or '(none)'} is not on the allow-list")
    return _bounds(policy, wish)


def _bounds(policy: Policy, wish: Wish) -> Answer:
    if wish.action in CAPPED and not Severity.UNKNOWN < wish.severity <= policy.autopatch_max_severity:
        cap = policy.autopatch_max_severity.name.lower()
        return Refuse("SEVERITY", f"severity {wish.severity.name.lower()} is not within the cap {cap}")
    if not wish.confidence >= policy.min_confidence:
        return Refuse("CONFIDENCE", f"confidence {wish.confidence:.2f} is below {policy.min_confidence:.2f}")
    if policy.require_staging and wish.staged is False and wish.action is not Action.RESTART:
        return Refuse("STAGING", "the release has not passed staging")
    return Allow()


def check(policy: Policy) -> None:
    """Raises Invalid, naming field, rule and remedy, for a value that makes no sense."""
    rules = {
        "autopatch_max_severity": (policy.autopatch_max_severity is not Severity.UNKNOWN, "low to critical"),
        "min_confidence": (0.0 <= policy.min_confidence <= 1.0, "between 0 and 1"),
        "staging_timeout": (1 <= policy.staging_timeout.total_seconds() <= 3600, "1 s to 1 h"),
        "health_check_timeout": (5 <= policy.health_check_timeout.total_seconds() <= 3600, "5 s to 1 h"),
        "health_check_interval": (0.2 <= policy.health_check_interval.total_seconds() <= 60, "0.2 s to 60 s"),
        "multisig_quorum": (1 <= policy.multisig_quorum <= 20, "between 1 and 20"),
        "rollback_error_rate_threshold": (0.0 <= policy.rollback_error_rate_threshold <= 100.0, "0 to 100 percent"),
        "rollback_heartbeat_missed": (5 <= policy.rollback_heartbeat_missed.total_seconds() <= 3600, "5 s to 1 h"),
        "canary_percentage": (0 <= policy.canary_percentage <= 100, "0 to 100 percent"),
        "autopatch_merchants": (_names(policy.autopatch_merchants), "at most 10,000 distinct names"),
        "canary_merchants": (_names(policy.canary_merchants), "at most 10,000 distinct names"),
    }
    for name, (good, rule) in rules.items():
        if not good:
            raise Invalid(f"policy.{name} must be {rule}", reason="POLICY_FIELD", field=f"policy.{name}", rule=rule)


def _names(values: tuple[str, ...]) -> bool:
    return len(values) <= 10_000 and len(set(values)) == len(values) and all(0 < len(name) <= 128 for name in values)
