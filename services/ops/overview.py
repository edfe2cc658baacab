"""The plane in ten seconds: what is wrong, what is done about it, what people must do.

Rule: the worst comes first, one line each, and every line that asks for something names what to type. A service that
nobody has probed lately is unknown, not well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.ops.states import FINAL
from services.ops.stories import change, spoken

LATELY: Final = timedelta(hours=24)
USUAL, MOST = 20, 200
# A probe comes every few seconds; a service not heard of for longer is unknown.
STALE: Final = timedelta(seconds=30)
LONGEST: Final = 300
HEALTH: Final = ("serving", "not_serving", "unreachable", "unknown")


@dataclass(frozen=True, slots=True)
class Broken:
    """An incident that is not over, with the attempt that is under way or was the last."""

    who: str
    type: str
    severity: str
    state: str
    evidence: str
    rounds: int = 0
    action: str = ""
    from_release: str = ""
    to_release: str = ""
    doing: str = ""
    held_by: str = ""


def state(broken: Broken) -> str:
    """An open incident with a live attempt is in progress."""
    live = bool(broken.doing) and broken.doing not in FINAL
    return "in_progress" if broken.state == "open" and live else broken.state


def line(broken: Broken) -> str:
    """What broke and what is done about it, in one line."""
    what = f"{broken.who}: {broken.type or 'an incident'}"
    what += f", {broken.severity}" if broken.severity else ""
    done = "a remedy is looked for"
    if broken.doing:
        does = change(broken.action, broken.from_release, broken.to_release)
        done = f"{does} {spoken(broken.doing, broken.held_by)}"
    if broken.state == "escalated":
        done = f"a person is asked ({done})" if broken.doing else "a person is asked"
    said = " · ".join(filter(None, (what, broken.evidence, done)))
    return said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"


def health(word: str, probed_at: datetime, now: datetime) -> str:
    """A service's health as it may still be believed."""
    return word if now - probed_at <= STALE and word in HEALTH else "unknown"


def called(label: str, plugin: str) -> str:
    """What people call a plugin; the end of its id, the part that differs, for one without a label."""
    return label or (f"plugin …{plugin[-8:]}" if plugin else "the plane")
