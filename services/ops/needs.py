"""What the plane needs from people, and the line to type.

Rule: some facts open a need, others end it; between facts about the same thing the latest counts, and of one moment the
one that ends it. A need of an incident that is over, or of a plugin that left, is none any more, and some run out by
themselves. Only things that a person can do something about are needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.ops.timeline import Told

# How long something that ended badly, and that nobody can undo any more, is still shown.
SHOWN: Final = timedelta(hours=24)
WEEK: Final = timedelta(days=7)
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
)


@dataclass(frozen=True, slots=True)
class Need:
    """One need as one fact tells it. `severity`: 1 (low) to 4 (critical); `until`: when it runs out by itself."""

    kind: str
    subject: str
    wanted: bool
    severity: int = 0
    line: str = ""
    command: str = ""
    until: datetime | None = None


SEVERITY: Final[Mapping[str, int]] = {"low": 1, "medium": 2, "high": 3, "critical": 4}
LOW, MEDIUM, HIGH, CRITICAL = 1, 2, 3, 4


def needs(told: Told, *, incident: str, plugin: str, at: datetime) -> list[Need]:
    """What a fact says is needed, or is not needed any more."""
    say = NEEDS.get(told.fact)
    return say(told, incident, plugin, at) if say else []


Say = Callable[[Told, str, str, datetime], list[Need]]


def _reason(command: str) -> str:
    return f'prunella {command} --reason "…"'


def _because(told: Told, line: str) -> str:
    line = f"{line} · {told.reason}" if told.reason else line
    return line if len(line) <= 300 else line[:299] + "…"


def _escalated(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del plugin, at
    line = _because(told, f"{told.who}: {told.text('type', 'an incident')} is yours now")
    severity = SEVERITY.get(told.text("severity", ""), MEDIUM)
    return [Need("incident", incident, True, severity, line, f"prunella stories show {incident}")]


def _incident_over(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del told, plugin, at
    return [Need("incident", incident, False)]


def _asked(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    subject = told.text("subject", "")
    collection, _, name = subject.partition("/")
    whose = told.who if collection == "attempts" else subject
    line = _because(told, f"{whose}: waits for {told.text('quorum', '1')} to approve")
    command = _reason(f"approve {name if collection == 'attempts' else subject}")
    return [Need("approval", subject, True, HIGH, line, command, told.fields.get("expire_time"))]


def _answered(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    # A plan that became another one is asked about anew, in the same moment.
    return [] if told.text("outcome", "") == "void" else [Need("approval", told.text("subject", ""), False)]


def _unconfirmed(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    name = told.text("attempt", "")
    line = _because(told, f"{told.who}: permitted to switch, and the agent's final word never came")
    return [Need("unconfirmed", name, True, CRITICAL, line, f"prunella attempts show {name}")]


def _stuck(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del plugin
    name = told.text("attempt", "")
    line = _because(told, f"{told.who}: could not be taken back from {told.text('to_release', 'what was applied')}")
    # With an incident it ends with it; without one nothing else would end it.
    until = None if incident else at + WEEK
    return [
        Need("unconfirmed", name, False),
        Need("rollback_failed", name, True, CRITICAL, line, f"prunella attempts show {name}", until),
    ]


def _final(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    name = told.text("attempt", "")
    return [
        Need("unconfirmed", name, False),
        Need("rollback_failed", name, False),
        Need("approval", f"attempts/{name}", False),
    ]


def _engaged(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    scope = told.text("scope", "global")
    line = _because(told, f"automation is stopped for {scope} by {told.actor}")
    severity = CRITICAL if scope == "global" else HIGH
    return [Need("kill_switch", scope, True, severity, line, _reason(f"kill-switch release --scope {scope}"))]


def _released(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    return [Need("kill_switch", told.text("scope", "global"), False)]


def _storm(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    share = f"{told.text('plugins')} of {told.text('fleet')} plugins"
    line = f"storm: {share} of {told.text('package')} have {told.text('type')} at once; automation waits"
    name = told.text("storm", "")
    return [Need("storm", name, True, CRITICAL, line, _reason(f"storms end {name}"))]


def _calm(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    return [Need("storm", told.text("storm", ""), False)]


def _rollout(what: str, command: str, *, shown: timedelta | None = None) -> Say:
    def say(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
        del incident, plugin
        name = told.text("rollout", "")
        line = _because(told, f"rollout of {told.text('package')} {told.text('target')} {what}")
        until = at + shown if shown else None
        typed = f"prunella rollout {command} {name}" if command == "show" else _reason(f"rollout {command} {name}")
        return [Need("rollout", name, True, HIGH, line, typed, until)]

    return say


def _rollout_on(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    name = told.text("rollout", "")
    return [Need("rollout", name, False), Need("approval", f"rollouts/{name}", False)]


def _report(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    name = told.text("report", "")
    line = _because(told, f"{told.who}: tools are at their end with {told.text('type', 'an error')}")
    severity = SEVERITY.get(told.text("severity", ""), MEDIUM)
    return [Need("report", name, True, severity, line, f"prunella errors show {name}")]


def _report_over(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    return [Need("report", told.text("report", ""), False)]


def _proposed(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    name = told.text("proposal", "")
    line = _because(told, f"{told.actor} asks for {told.text('action', 'something')} of {told.text('target')}")
    return [Need("proposal", name, True, LOW, line, _reason(f"proposals approve {name}"))]


def _decided(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, plugin, at
    return [Need("proposal", told.text("proposal", ""), False)]


def _quarantined(told: Told, incident: str, plugin: str, at: datetime) -> list[Need]:
    del incident, at
    line = _because(told, f"{told.who} is shut out: two agents use its identity")
    return [Need("quarantine", plugin, True, HIGH, line, _reason(f"plugins retire {plugin}"))]


NEEDS: Final[Mapping[str, Say]] = {
    "incident_escalated": _escalated,
    "incident_mitigated": _incident_over,
    "incident_closed": _incident_over,
    "approval_requested": _asked,
    "approval_ended": _answered,
    "attempt_unconfirmed": _unconfirmed,
    "attempt_rollback_failed": _stuck,
    "attempt_succeeded": _final,
    "attempt_rolled_back": _final,
    "attempt_failed": _final,
    "attempt_cancelled": _final,
    "attempt_refused": _final,
    "kill_switch_engaged": _engaged,
    "kill_switch_released": _released,
    "storm_started": _storm,
    "storm_ended": _calm,
    "rollout_paused": _rollout("is paused", "resume"),
    "rollout_halted": _rollout("is halted, its wave is taken back", "show", shown=SHOWN),
    "rollout_resumed": _rollout_on,
    "rollout_promoted": _rollout_on,
    "rollout_wave_started": _rollout_on,
    "rollout_aborted": _rollout_on,
    "rollout_succeeded": _rollout_on,
    "report_escalated": _report,
    "report_resolved": _report_over,
    "report_closed": _report_over,
    "task_retried": _report_over,
    "proposal_created": _proposed,
    "proposal_decided": _decided,
    "plugin_quarantined": _quarantined,
}
