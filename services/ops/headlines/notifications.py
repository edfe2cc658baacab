"""Headlines of notifications, annotations and the audit log.

Rule: what an operator wrote stands in quotation marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.ops.decoded_fact import DecodedFact
from services.ops.text import counted, quoted

QUOTED = 160


def _assigned(fact: DecodedFact) -> str:
    who = fact.text("assignee", "").rpartition("/")[2]
    return f"{fact.label}: {who} takes care of it" if who else f"{fact.label}: nobody takes care of it any more"


def _commented(fact: DecodedFact) -> str:
    return f"{fact.label}: {fact.actor} says {quoted(fact.text('text', 'nothing'), QUOTED)}"


def _sent(fact: DecodedFact) -> str:
    return f"{fact.text('channel')} was told of {counted(int(fact.number('facts')), 'fact')}"


def _failed(fact: DecodedFact) -> str:
    tries = int(fact.number("tries"))
    error = fact.text("error", fact.reason)
    return f"{fact.text('channel')} could not be told after {tries} tr{'y' if tries == 1 else 'ies'} · {error}"


def _escalated(fact: DecodedFact) -> str:
    channels = ", ".join(fact.fields.get("channels") or ()) or "nobody is left to tell"
    return f"nobody answered in time; next: {channels}"


def _changed(fact: DecodedFact) -> str:
    fields = ", ".join(change.get("field", "?") for change in fact.fields.get("changes") or ()) or "nothing"
    return f"who is told of what, changed by {fact.actor}: {fields}"


HEADLINES: Mapping[str, Callable[[DecodedFact], str]] = {
    "incident_assigned": _assigned,
    "incident_commented": _commented,
    "notification_sent": _sent,
    "notification_failed": _failed,
    "notification_acknowledged": lambda fact: f"{fact.actor} has seen it",
    "notification_escalated": _escalated,
    "notification_settings_changed": _changed,
    "audit_violated": lambda fact: f"the audit log was violated: {fact.text('detail', fact.reason)}",
}
