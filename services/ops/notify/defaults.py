"""Defaults of notifications: which facts each audience gets, how severe they are, and which are the same news.

Rule: by default operators get whatever raises an item that needs a person (services/ops/attention.py), and a few things
beside; merchants get what was healed at theirs. A fact that carries a severity has that one; any other has the one of
its kind. Each says what to type next. Facts about notifications never become notifications, or one message would lead
to the next for ever.

What is wrong with one plugin is the same news as long as it is of the same type: an incident that comes back, and the
next one of its kind, are counted with the message about the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.ops.attention import RAISING, raised
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
# Told beside what needs a person, and what to type then; dead letters are looked up where they are shown.
BESIDE: Mapping[str, str] = {
    "storm_ended": "storms list",
    "rollout_aborted": "rollout show {rollout}",
    "fact_dead_lettered": "dead-letters list --consumer {consumer}",
    "approval_ended": "",
}
FOR_OPERATORS = frozenset(RAISING) | frozenset(BESIDE)
# Of these only those that need a person are told by default.
ONLY_WHEN_RAISED = frozenset({"incident_reopened"})
FOR_MERCHANTS = frozenset({"attempt_succeeded", "incident_mitigated"})
SEVERITIES: Mapping[str, Severity] = {
    "attempt_unconfirmed": Severity.CRITICAL,
    "attempt_rollback_failed": Severity.CRITICAL,
    "storm_started": Severity.CRITICAL,
    "audit_violated": Severity.CRITICAL,
    "incident_escalated": Severity.HIGH,
    "incident_reopened": Severity.HIGH,
    "kill_switch_engaged": Severity.HIGH,
    "rollout_halted": Severity.HIGH,
    "rollout_paused": Severity.HIGH,
    "rollout_aborted": Severity.HIGH,
    "plugin_quarantined": Severity.HIGH,
    "approval_overdue": Severity.HIGH,
    "fact_dead_lettered": Severity.HIGH,
    "approval_requested": Severity.MEDIUM,
    "approval_ended": Severity.MEDIUM,
    "report_escalated": Severity.MEDIUM,
    "proposal_created": Severity.MEDIUM,
}
# Facts of an incident that ask people about it, and those after which nobody is asked any more.
ABOUT_INCIDENTS = frozenset({"incident_escalated", "incident_reopened"})
ENDS_OF_INCIDENTS = frozenset({"incident_mitigated", "incident_closed"})
# Fields that name what a fact is about, where it belongs to no incident.
SUBJECTS = ("storm", "rollout", "report", "subject", "attempt", "scope", "strategy", "proposal", "task", "consumer")


def severity(fact: DecodedFact) -> Severity:
    """The severity of a fact."""
    word = str(fact.fields.get("severity") or "").upper()
    return Severity.__members__.get(word) or SEVERITIES.get(fact.name, Severity.LOW)


def command(fact: DecodedFact) -> str:
    """What to type next, empty when there is nothing to do."""
    item = raised(fact)
    if item is not None:
        return item.command
    beside = BESIDE.get(fact.name, "").format_map({name: fact.text(name) for name in ("consumer", "rollout")})
    return f"prunella {beside}" if beside else ""


def routed(fact: DecodedFact) -> bool:
    """Whether a route that goes by its audience's defaults takes the fact, when it takes its kind."""
    if fact.name == "approval_ended":
        # Who was asked hears that nobody has to answer any more; what people answered they know.
        return fact.text("outcome", "") == "withdrawn"
    return fact.name not in ONLY_WHEN_RAISED or raised(fact) is not None


def dedup_key(fact: DecodedFact) -> str:
    """What makes two facts the same news: their kind, what they are about, and whether it is critical by now.

    Two plans of one incident are two questions. What asks people about an incident is the same news as any other of the
    same plugin and type.
    """
    urgent = "!" if severity(fact) is Severity.CRITICAL else ""
    if fact.name in ABOUT_INCIDENTS and (key := incident_key(fact)):
        return key + urgent
    named = next((str(fact.fields[name]) for name in SUBJECTS if fact.fields.get(name)), "")
    about = fact.text("plan_hash", "") or fact.incident or named or fact.plugin or "plane"
    return f"{fact.name}:{about[:150]}{urgent}"


def incident_key(fact: DecodedFact) -> str:
    """The key of whatever asks people about incidents of one plugin and type; empty where the fact names none."""
    type_ = fact.text("type", "")
    return f"incident:{fact.plugin}:{type_[:100]}" if fact.plugin and type_ else ""
