"""The plane in ten seconds: active incidents, recent outcomes, and what needs a person's attention.

Rule: the worst comes first, one line each, and every line that asks for something names what to type. A service that
nobody has probed lately is unknown, not well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.ops.attempt_states import FINAL, progress, remedy
from services.ops.text import shortened, times

RECENT: Final = timedelta(hours=24)
DEFAULT_LINES, MOST_LINES = 20, 200
# A probe comes every few seconds; a service not heard of for longer is unknown.
STALE: Final = timedelta(seconds=30)
LONGEST: Final = 300
HEALTH: Final = ("serving", "not_serving", "unreachable", "unknown")


@dataclass(frozen=True, slots=True)
class ActiveIncident:
    """An incident that is not over, with the attempt that is under way or was the last."""

    label: str
    type: str
    severity: str
    state: str
    evidence: str
    reopened: int = 0
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    attempt_state: str = ""
    held_by: str = ""


def state(incident: ActiveIncident) -> str:
    """An open incident with a live attempt is in progress."""
    live = bool(incident.attempt_state) and incident.attempt_state not in FINAL
    return "in_progress" if incident.state == "open" and live else incident.state


def line(incident: ActiveIncident) -> str:
    """What broke and what is done about it, in one line."""
    what = f"{incident.label}: {incident.type or 'an incident'}"
    what += f", {incident.severity}" if incident.severity else ""
    what += f", came back {times(incident.reopened)}" if incident.reopened else ""
    response = "a remedy is looked for"
    if incident.attempt_state:
        change = remedy(incident.action, incident.from_release, incident.to_release)
        response = f"{change} {progress(incident.attempt_state, incident.held_by)}"
    if incident.state in {"escalated", "flapping"}:
        response = f"a person is asked ({response})" if incident.attempt_state else "a person is asked"
    if incident.state == "flapping":
        response = f"flapping, {response}"
    return shortened(" · ".join(filter(None, (what, incident.evidence, response))), LONGEST)


def health(reported: str, probe_time: datetime, now: datetime) -> str:
    """A service's health while its last probe is recent, else `unknown`."""
    return reported if now - probe_time <= STALE and reported in HEALTH else "unknown"
