"""What requests ask for: times, severities, states, merchants and ids, checked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import names
from libs.common.errors import Invalid
from libs.common.facts import NAMES
from libs.common.timestamps import moment
from prunella.v1.events_pb2 import Severity
from services.ops.severity import SEVERITIES
from services.ops.stories import INCIDENT_STATES
from services.ops.timeline import TimelineFilter

LONGEST_NAME = 128


def time(message: Any, field: str) -> datetime | None:
    """A time of a request, None when it is not set. Raises Invalid."""
    return moment(getattr(message, field), field) if message.HasField(field) else None


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time for an answer; None stays unset."""
    if time is None:
        return None
    made = Timestamp()
    made.FromDatetime(time)
    return made


def severity(value: int) -> int:
    """1 to 4, 0 for any. Raises Invalid for a number that is no severity."""
    if value not in Severity.values():
        raise Invalid(
            f"severity must be one of {', '.join(SEVERITIES)}; {value} is none",
            reason="UNKNOWN_SEVERITY",
            field="severity",
        )
    return value


def incident_state(text: str) -> str:
    """A state of incidents, empty for any. Raises Invalid."""
    if text and text not in INCIDENT_STATES:
        raise Invalid(
            f"state must be one of {', '.join(INCIDENT_STATES)}, not {text[:40]!r}",
            reason="UNKNOWN_STATE",
            field="state",
        )
    return text


def merchant(text: str) -> str:
    """A merchant's id, with or without its collection; empty for everybody. Raises Invalid."""
    text = text.removeprefix("merchants/")
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise Invalid(
            f"merchant must be an id of at most {LONGEST_NAME} characters", reason="BAD_NAME", field="merchant"
        )
    return text


def timeline(plugin: str, incident: str, facts: Iterable[str]) -> TimelineFilter:
    """The filter of a request; ids may come with their collection. Raises Invalid for an unknown fact."""
    wanted = tuple(sorted(set(facts)))
    for fact in wanted:
        if fact not in NAMES:
            raise Invalid(
                f"there is no fact {fact[:60]!r}; see events.proto, for example incident_opened",
                reason="UNKNOWN_FACT",
                field="facts",
                fact=fact[:60],
            )
    return TimelineFilter(id_in("plugins", plugin, "plugin"), id_in("incidents", incident, "incident"), wanted)


def id_in(collection: str, name: str, field: str) -> str:
    """The id in a name that may come with its collection; empty stays empty. Raises Invalid."""
    if not name:
        return ""
    return names.parse(collection, name if "/" in name else f"{collection}/{name}", field=field)
