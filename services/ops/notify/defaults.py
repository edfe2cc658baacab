"""Defaults of notifications: which facts each audience gets, how severe they are, and which are the same news.

Rule: by default operators get what the plane cannot or may not do alone, and merchants what was healed at theirs. A
fact that carries a severity has that one; any other has the one of its kind. Facts about notifications never become
notifications, or one message would lead to the next for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.ops.decoded_fact import DecodedFact
from services.ops.severity import Severity

NEVER_NOTIFIED = frozenset(
    {
        "notification_sent",
        "notification_failed",
        "notification_acknowledged",
        "notification_escalated",
        "notification_settings_changed",
    }
)
FOR_OPERATORS = frozenset(
    {
        "incident_escalated",
        "attempt_unconfirmed",
        "attempt_rollback_failed",
        "approval_requested",
        "approval_overdue",
        "storm_started",
        "storm_ended",
        "rollout_halted",
        "kill_switch_engaged",
        "report_escalated",
        "plugin_quarantined",
        "audit_violated",
    }
)
FOR_MERCHANTS = frozenset({"attempt_succeeded", "incident_mitigated"})
SEVERITIES: Mapping[str, Severity] = {
    "attempt_unconfirmed": Severity.CRITICAL,
    "attempt_rollback_failed": Severity.CRITICAL,
    "storm_started": Severity.CRITICAL,
    "audit_violated": Severity.CRITICAL,
    "incident_escalated": Severity.HIGH,
    "kill_switch_engaged": Severity.HIGH,
    "rollout_halted": Severity.HIGH,
    "plugin_quarantined": Severity.HIGH,
    "approval_overdue": Severity.HIGH,
    "approval_requested": Severity.MEDIUM,
    "report_escalated": Severity.MEDIUM,
}
# Fields that name what a fact is about, where it belongs to no incident.
SUBJECTS = ("storm", "rollout", "report", "subject", "attempt", "scope", "strategy", "proposal", "task")


def severity(fact: DecodedFact) -> Severity:
    """The severity of a fact."""
    word = str(fact.fields.get("severity") or "").upper()
    return Severity.__members__.get(word) or SEVERITIES.get(fact.name, Severity.LOW)


def dedup_key(fact: DecodedFact) -> str:
    """What makes two facts the same news: their kind, what they are about, and whether it is critical by now.

    Two plans of one incident are two questions.
    """
    named = next((str(fact.fields[name]) for name in SUBJECTS if fact.fields.get(name)), "")
    about = fact.text("plan_hash", "") or fact.incident or named or fact.plugin or "plane"
    return f"{fact.name}:{about[:150]}{'!' if severity(fact) is Severity.CRITICAL else ''}"
