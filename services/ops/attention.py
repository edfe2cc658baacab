"""What needs a person's attention, and the command that answers it.

Rule: some facts raise an item (RAISING), others clear it (CLEARING); between facts about the same subject the latest
counts, and of one time the one that clears. An item of an incident that has ended, or of a plugin that retired, needs
nobody any more, and some expire. Only what a person can do something about is an item, and operators are notified of
each kind of fact that raises one (services/ops/notify/defaults.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.ops import severity
from services.ops.decoded_fact import DecodedFact
from services.ops.interventions import OPERATORS
from services.ops.severity import Severity
from services.ops.text import shortened, times

# How long something that ended badly, and that nobody can revert any more, is still shown.
SHOWN: Final = timedelta(hours=24)
WEEK: Final = timedelta(days=7)
LONGEST: Final = 300
KINDS: Final = (
    "incident",
    "approval",
    "unconfirmed",
    "rollback_failed",
    "kill_switch",
    "storm",
    "rollout",
    "report",
    "proposal",
    "quarantine",
    "audit",
)


@dataclass(frozen=True, slots=True)
class AttentionItem:
    """An item as one fact raised or cleared it. `severity`: 1 (low) to 4 (critical), 0 for one that was cleared."""

    kind: str
    subject: str
    active: bool
    time: datetime
    incident: str
    plugin: str
    merchant: str
    severity: int = 0
    line: str = ""
    command: str = ""
    expire_time: datetime | None = None


def attention(fact: DecodedFact) -> list[AttentionItem]:
    """The items a fact raises and clears; what it names no subject for is none."""
    rule = RAISING.get(fact.name) or CLEARING.get(fact.name)
    return [item for item in rule(fact) if item.subject] if rule else []


def raised(fact: DecodedFact) -> AttentionItem | None:
    """The item a fact raises; None when nobody needs to do anything about it."""
    return next((item for item in attention(fact) if item.active), None)


Rule = Callable[[DecodedFact], list[AttentionItem]]


def _raised(
    fact: DecodedFact, kind: str, subject: str, severity: int, line: str, command: str, expire: datetime | None = None
) -> AttentionItem:
    about = (fact.time, fact.incident, fact.plugin, fact.merchant)
    return AttentionItem(kind, subject, True, *about, severity, shortened(line, LONGEST), f"prunella {command}", expire)


def _cleared(fact: DecodedFact, kind: str, subject: str) -> AttentionItem:
    return AttentionItem(kind, subject, False, fact.time, fact.incident, fact.plugin, fact.merchant)


def _clears(kind: str, field: str) -> Rule:
    """Clears the item about what a field names."""
    return lambda fact: [_cleared(fact, kind, fact.text(field, ""))]


def _with_reason(command: str) -> str:
    return f'{command} --reason "…"'


def _severity(fact: DecodedFact) -> int:
    return severity.number(fact.text("severity", "")) or Severity.MEDIUM


def _incident_escalated(fact: DecodedFact) -> list[AttentionItem]:
    line = fact.with_reason(f"{fact.label}: {fact.text('type', 'an incident')} is yours now")
    return [_raised(fact, "incident", fact.incident, _severity(fact), line, f"stories show {fact.incident}")]


def _incident_reopened(fact: DecodedFact) -> list[AttentionItem]:
    # Where nobody was asked before, incident_escalated follows when somebody is to be.
    if not fact.fields.get("escalated"):
        return []
    what = "is flapping" if fact.fields.get("flapping") else "is back"
    line = (
        f"{fact.label}: {fact.text('type', 'an incident')} {what}, {times(fact.number('reopened'))} by now, still yours"
    )
    return [_raised(fact, "incident", fact.incident, _severity(fact), line, f"stories show {fact.incident}")]


def _incident_ended(fact: DecodedFact) -> list[AttentionItem]:
    return [_cleared(fact, "incident", fact.incident)]


def _approval_requested(fact: DecodedFact) -> list[AttentionItem]:
    subject = fact.text("subject", "")
    whose, approve = (fact.label, fact.attempt) if fact.attempt else (subject, subject)
    line = fact.with_reason(f"{whose}: waits for {fact.text('quorum', '1')} to approve")
    command, expire = _with_reason(f"approve {approve}"), fact.fields.get("expire_time")
    return [_raised(fact, "approval", subject, Severity.HIGH, line, command, expire)]


def _approval_overdue(fact: DecodedFact) -> list[AttentionItem]:
    # The same question, asked again: whoever approves or rejects it ends both.
    subject = fact.text("subject", "")
    whose, approve = (fact.label, fact.attempt) if fact.attempt else (subject, subject)
    line, expire = f"{whose}: waits for approval, and nobody has answered yet", fact.fields.get("expire_time")
    return [_raised(fact, "approval", subject, Severity.HIGH, line, _with_reason(f"approve {approve}"), expire)]


def _approval_ended(fact: DecodedFact) -> list[AttentionItem]:
    # A plan that became another one (void) is put to people anew, at the same time.
    return [] if fact.text("outcome", "") == "void" else [_cleared(fact, "approval", fact.text("subject", ""))]


def _attempt_unconfirmed(fact: DecodedFact) -> list[AttentionItem]:
    line = fact.with_reason(f"{fact.label}: permitted to switch, and the agent's final word never came")
    return [_raised(fact, "unconfirmed", fact.attempt, Severity.CRITICAL, line, f"attempts show {fact.attempt}")]


def _rollback_failed(fact: DecodedFact) -> list[AttentionItem]:
    release = fact.text("to_release", "what was applied")
    line = fact.with_reason(f"{fact.label}: could not be taken back from {release}")
    # With an incident it ends with it; without one nothing else would end it.
    expire, command = None if fact.incident else fact.time + WEEK, f"attempts show {fact.attempt}"
    return [
        _cleared(fact, "unconfirmed", fact.attempt),
        _raised(fact, "rollback_failed", fact.attempt, Severity.CRITICAL, line, command, expire),
    ]


def _attempt_ended(fact: DecodedFact) -> list[AttentionItem]:
    return [
        _cleared(fact, "unconfirmed", fact.attempt),
        _cleared(fact, "rollback_failed", fact.attempt),
        _cleared(fact, "approval", f"attempts/{fact.attempt}"),
    ]


def _kill_switch_engaged(fact: DecodedFact) -> list[AttentionItem]:
    scope = fact.text("scope", "global")
    line = fact.with_reason(f"automation is stopped for {scope} by {fact.actor}")
    severity = Severity.CRITICAL if scope == "global" else Severity.HIGH
    return [_raised(fact, "kill_switch", scope, severity, line, _with_reason(f"kill-switch release --scope {scope}"))]


def _kill_switch_released(fact: DecodedFact) -> list[AttentionItem]:
    return [_cleared(fact, "kill_switch", fact.text("scope", "global"))]


def _storm_started(fact: DecodedFact) -> list[AttentionItem]:
    share, name = f"{fact.text('plugins')} of {fact.text('fleet')} plugins", fact.text("storm", "")
    line = f"storm: {share} of {fact.text('package')} have {fact.text('type')} at once; automation waits"
    return [_raised(fact, "storm", name, Severity.CRITICAL, line, _with_reason(f"storms end {name}"))]


def _rollout_stopped(what: str, command: str, *, shown: timedelta | None = None) -> Rule:
    def rule(fact: DecodedFact) -> list[AttentionItem]:
        name = fact.text("rollout", "")
        line = fact.with_reason(f"rollout of {fact.text('package')} {fact.text('target')} {what}")
        typed = f"rollout {command} {name}" if command == "show" else _with_reason(f"rollout {command} {name}")
        expire = fact.time + shown if shown else None
        return [_raised(fact, "rollout", name, Severity.HIGH, line, typed, expire)]

    return rule


def _rollout_continues(fact: DecodedFact) -> list[AttentionItem]:
    name = fact.text("rollout", "")
    return [_cleared(fact, "rollout", name), _cleared(fact, "approval", f"rollouts/{name}")]


def _rollout_aborted(fact: DecodedFact) -> list[AttentionItem]:
    ended = _rollout_continues(fact)
    if fact.actor.startswith(OPERATORS):
        return ended
    # Nobody went on with it in time, so nobody knows yet that plugins are left on two releases.
    return [*ended[1:], *_rollout_stopped("is aborted, nobody went on with it", "show", shown=SHOWN)(fact)]


def _report_escalated(fact: DecodedFact) -> list[AttentionItem]:
    name = fact.text("report", "")
    line = fact.with_reason(f"{fact.label}: tools are at their end with {fact.text('type', 'an error')}")
    return [_raised(fact, "report", name, _severity(fact), line, f"errors show {name}")]


def _proposal_created(fact: DecodedFact) -> list[AttentionItem]:
    name = fact.text("proposal", "")
    line = fact.with_reason(f"{fact.actor} asks for {fact.text('action', 'something')} of {fact.text('target')}")
    return [_raised(fact, "proposal", name, Severity.LOW, line, _with_reason(f"proposals approve {name}"))]


def _quarantined(fact: DecodedFact) -> list[AttentionItem]:
    line = f"{fact.label} is shut out: two agents use its identity; end one of them, then let it in again"
    command = _with_reason(f"plugins release-quarantine {fact.plugin}")
    return [_raised(fact, "quarantine", fact.plugin, Severity.HIGH, line, command)]


def _audit_violated(fact: DecodedFact) -> list[AttentionItem]:
    # What was changed stays changed: nothing clears it.
    subject = fact.text("event", "") or f"entry {fact.text('index', '0')}"
    line = fact.with_reason("the audit log and the database differ")
    return [_raised(fact, "audit", subject, Severity.CRITICAL, line, "audit check", fact.time + WEEK)]


RAISING: Final[Mapping[str, Rule]] = {
    "incident_escalated": _incident_escalated,
    "incident_reopened": _incident_reopened,
    "approval_requested": _approval_requested,
    "approval_overdue": _approval_overdue,
    "attempt_unconfirmed": _attempt_unconfirmed,
    "attempt_rollback_failed": _rollback_failed,
    "kill_switch_engaged": _kill_switch_engaged,
    "storm_started": _storm_started,
    "rollout_paused": _rollout_stopped("is paused", "resume"),
    "rollout_halted": _rollout_stopped("is halted, its wave is taken back", "show", shown=SHOWN),
    "rollout_aborted": _rollout_aborted,
    "report_escalated": _report_escalated,
    "proposal_created": _proposal_created,
    "plugin_quarantined": _quarantined,
    "audit_violated": _audit_violated,
}
CLEARING: Final[Mapping[str, Rule]] = {
    "incident_mitigated": _incident_ended,
    "incident_closed": _incident_ended,
    "approval_ended": _approval_ended,
    "attempt_succeeded": _attempt_ended,
    "attempt_rolled_back": _attempt_ended,
    "attempt_failed": _attempt_ended,
    "attempt_cancelled": _attempt_ended,
    "attempt_refused": _attempt_ended,
    "kill_switch_released": _kill_switch_released,
    "storm_ended": _clears("storm", "storm"),
    "rollout_resumed": _rollout_continues,
    "rollout_promoted": _rollout_continues,
    "rollout_wave_started": _rollout_continues,
    "rollout_succeeded": _rollout_continues,
    "report_resolved": _clears("report", "report"),
    "report_closed": _clears("report", "report"),
    "task_retried": _clears("report", "report"),
    "proposal_decided": _clears("proposal", "proposal"),
    "quarantine_released": lambda fact: [_cleared(fact, "quarantine", fact.plugin)],
}
