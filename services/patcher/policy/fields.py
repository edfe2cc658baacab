"""What a field of the policy may hold, and what differs between two policies.

Rule: a value that makes no sense is refused with field, rule and remedy, and so is a pair of values that contradict one
another. A difference is told field by field, before and after, so that history can be read.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from libs.common.errors import Invalid
from services.patcher import approvals, freeze
from services.patcher.policy.model import EDITABLE, Isolation, Policy, Severity

Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Bound:
    """What a field must be: the test, the rule in words, and what to do instead."""

    test: Test
    rule: str
    remedy: str


def _lasts(least: float, most: float) -> Test:
    return lambda value: least <= value.total_seconds() <= most


def _within(least: float, most: float) -> Test:
    return lambda value: math.isfinite(value) and least <= value <= most


def _names(values: tuple[str, ...]) -> bool:
    return len(values) <= 10_000 and len(set(values)) == len(values) and all(0 < len(name) <= 128 for name in values)


_MERCHANTS = Bound(_names, "at most 10,000 distinct names of 1 to 128 characters", "name each merchant once")
_PERCENT = Bound(_within(0, 100), "0 to 100 percent", "write 10 for 10 %")

BOUNDS: Final = {
    "autopatch_max_severity": Bound(lambda value: value is not Severity.UNKNOWN, "low to critical", "write medium"),
    "min_confidence": Bound(_within(0, 1), "between 0 and 1", "write 0.75 for 75 %"),
    "staging_timeout": Bound(_lasts(1, 3600), "1 s to 1 h", "write 300 s"),
    "min_isolation": Bound(
        lambda value: value is not Isolation.UNKNOWN, "none, user or namespaces", "write namespaces"
    ),
    "health_check_timeout": Bound(_lasts(5, 3600), "5 s to 1 h", "write 90 s"),
    "health_check_interval": Bound(_lasts(0.2, 60), "0.2 s to 60 s", "write 3 s"),
    "multisig_quorum": Bound(_within(1, approvals.MAX_QUORUM), f"between 1 and {approvals.MAX_QUORUM}", "write 2"),
    "rollback_error_rate_threshold": _PERCENT,
    "rollback_heartbeat_missed": Bound(_lasts(5, 3600), "5 s to 1 h", "write 120 s"),
    "canary_percentage": _PERCENT,
    "autopatch_merchants": _MERCHANTS,
    "canary_merchants": _MERCHANTS,
    "multisig_approvers": Bound(lambda value: len(value) <= 1000 and _names(value), "1,000 names", "use roles"),
    "approval_timeout": Bound(_lasts(60, 604_800), "1 minute to 7 days", "write 1 h"),
    "high_impact_plugins": Bound(_within(1, 10_000_000), "1 to 10,000,000 plugins", "write 50"),
    "max_in_flight": Bound(_within(1, 10_000), "1 to 10,000 attempts", "engage a kill switch to stop all"),
    "max_in_flight_percentage": Bound(
        lambda value: 0 < value <= 100, "above 0 and at most 100 percent", "engage a kill switch to stop all"
    ),
    "max_attempts": Bound(_within(1, 1000), "1 to 1,000 attempts", "switch autopatch_enabled off to have none"),
    "attempts_window": Bound(_lasts(60, 2_592_000), "1 minute to 30 days", "write 24 h"),
}


def check(policy: Policy) -> None:
    """Raises Invalid, naming field, rule and remedy, for a value that makes no sense or contradicts another."""
    for name, bound in BOUNDS.items():
        if not bound.test(getattr(policy, name)):
            raise _invalid(name, f"must be {bound.rule}", bound.remedy)
    if policy.health_check_interval >= policy.health_check_timeout:
        rule = "must be shorter than health_check_timeout, or nothing is looked at"
        raise _invalid("health_check_interval", rule, "write 3 s")
    try:
        approvals.check(policy.quorum)
        freeze.check_all(policy.freeze_windows)
    except Invalid as wrong:
        field = QUORUM_FIELDS.get(wrong.field, wrong.field)
        raise _invalid(field, wrong.metadata["rule"], wrong.metadata["remedy"]) from None


QUORUM_FIELDS: Final = {
    "quorum.size": "multisig_quorum",
    "quorum.seats": "multisig_roles",
    "quorum.approvers": "multisig_approvers",
}


@dataclass(frozen=True)
class Difference:
    """One field that differs, with both values as JSON text."""

    field: str
    before: str
    after: str


def diff(old: Policy, new: Policy) -> tuple[Difference, ...]:
    """What differs between two policies, in the order of the fields; bookkeeping is left out."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in EDITABLE)
    return tuple(Difference(name, as_json(before), as_json(after)) for name, before, after in pairs if before != after)


def as_json(value: Any) -> str:
    """A field's value as JSON text; durations in seconds, severities by name."""
    return json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)


def _plain(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case Severity() | Isolation():
            return value.name.lower()
        case freeze.FreezeWindow():
            return {name: _plain(part) for name, part in vars(value).items()}
        case tuple():
            return [_plain(part) for part in value]
        case _:
            return value


def _invalid(name: str, rule: str, remedy: str) -> Invalid:
    field = f"policy.{name}"
    return Invalid(f"{field} {rule}; {remedy}", reason="POLICY_FIELD", field=field, rule=rule, remedy=remedy)
