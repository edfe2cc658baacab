"""Who is silent, and whether that says anything.

Rule: silence counts from the last beat or from the moment ingest began to hear without a gap, whichever is later: a
plane that was down blames nobody. Who said goodbye is not blamed before the time it named, and not at all if it named
none. A plugin that polls may be silent for two and a half of its intervals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# A replica that did not note that it hears for so long (seconds) was not hearing.
GAP = 15.0
PATIENCE = 2.5


@dataclass(frozen=True, slots=True)
class Hearing:
    """One replica heard agents from `since` to `last` (Unix seconds)."""

    since: float
    last: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is known of a plugin that may be silent; `back_by` is 0 when it named no time."""

    plugin: str
    heard: float
    polls: bool
    away: bool
    back_by: float


def hearing_since(hearings: Iterable[Hearing], now: float) -> float | None:
    """Since when some replica or other has heard without a gap; None when nobody hears now."""
    begin: float | None = None
    edge = now
    for hearing in sorted(hearings, key=lambda hearing: hearing.last, reverse=True):
        if hearing.last < edge - GAP:
            break
        begin = hearing.since if begin is None else min(begin, hearing.since)
        edge = min(edge, hearing.since)
    return begin


def silent(quiet: Quiet, hearing: float, now: float, *, silence: float, poll: float) -> bool:
    """Whether a plugin's silence is an anomaly. `silence` and `poll` are settings in seconds."""
    if quiet.away and not quiet.back_by:
        return False
    begin = max(quiet.heard, hearing, quiet.back_by if quiet.away else 0.0)
    return now - begin > (max(silence, PATIENCE * poll) if quiet.polls else silence)
