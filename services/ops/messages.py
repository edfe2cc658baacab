"""Headlines of the word to people: who takes care of an incident, what was sent to whom, and who answered.

Rule: as on the rest of the timeline. What a person wrote stands in quotation marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ops.timeline import Told

QUOTED = 160


def _assigned(told: Told) -> str:
    who = told.text("assignee", "").rpartition("/")[2]
    return f"{told.who}: {who} takes care of it" if who else f"{told.who}: nobody takes care of it any more"


def _commented(told: Told) -> str:
    words = " ".join(told.text("text", "nothing").split())
    return f"{told.who}: {told.actor} says “{words if len(words) <= QUOTED else words[: QUOTED - 1] + '…'}”"


def _sent(told: Told) -> str:
    count = int(told.number("facts"))
    return f"{told.text('channel')} was told of {count} fact{'' if count == 1 else 's'}"


def _failed(told: Told) -> str:
    tries = int(told.number("tries"))
    error = told.text("error", told.reason)
    return f"{told.text('channel')} could not be told after {tries} tr{'y' if tries == 1 else 'ies'} · {error}"


def _escalated(told: Told) -> str:
    channels = ", ".join(told.fields.get("channels") or ()) or "nobody is left to tell"
    return f"nobody answered in time; next: {channels}"


def _changed(told: Told) -> str:
    fields = ", ".join(change.get("field", "?") for change in told.fields.get("changes") or ()) or "nothing"
    return f"who is told of what, changed by {told.actor}: {fields}"


HEADLINES: Mapping[str, Callable[[Told], str]] = {
    "incident_assigned": _assigned,
    "incident_commented": _commented,
    "notification_sent": _sent,
    "notification_failed": _failed,
    "notification_acknowledged": lambda told: f"{told.actor} has seen it",
    "notification_escalated": _escalated,
    "notification_settings_changed": _changed,
    "audit_violated": lambda told: f"the audit log was violated: {told.text('why', told.reason)}",
}
