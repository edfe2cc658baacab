"""Who is silent, and whether that says anything.

Rule: silence counts from the last beat or from when ingest began to listen without a gap, whichever is later: a plane
that was down blames nobody. Who said goodbye is not blamed before the time it named; who named none is away, and missed
after a bounded time. A plugin that polls may be silent for two and a half of its intervals. A beat from a time still to
come was heard before the clock was set back: silence counts from when that was noticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# A replica that did not note that it runs for so long (seconds) was not listening.
GAP = 15.0
POLLS_MISSED = 2.5
# What lies further ahead (seconds) is from before a clock was set back, since replicas' clocks differ by less. A
# smaller step hides a silence for no longer than that.
SET_BACK = 60.0


@dataclass(frozen=True, slots=True)
class Uptime:
    """One replica ran from `start_time` to `last_seen_time` (Unix seconds)."""

    start_time: float
    last_seen_time: float


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known of a plugin that may be silent for too long; `back_by_time` is 0 when it named no time."""

    plugin: str
    last_beat_time: float
    polling: bool
    away: bool
    back_by_time: float


def listening_since(uptimes: Iterable[Uptime], now: float) -> float | None:
    """Since when some replica or other has run without a gap; None when none does now."""
    begin: float | None = None
    edge = now
    for uptime in sorted(uptimes, key=lambda uptime: uptime.last_seen_time, reverse=True):
        if uptime.last_seen_time > now + SET_BACK:
            continue
        if uptime.last_seen_time < edge - GAP:
            break
        begin = uptime.start_time if begin is None else min(begin, uptime.start_time)
        edge = min(edge, uptime.start_time)
    return begin


def tolerated(silence: float, poll: float, *, polling: bool) -> float:
    """Seconds a plugin may be silent; `silence` and `poll` are settings in seconds."""
    return max(silence, POLLS_MISSED * poll) if polling else silence


def is_missed(quiet: Silence, listening: float, now: float, *, silence: float, poll: float) -> bool:
    """Whether a plugin's silence is an anomaly, when ingest has listened since `listening`."""
    if quiet.away and not quiet.back_by_time:
        return False
    begin = max(_last_beat_time(quiet, now), listening, quiet.back_by_time if quiet.away else 0.0)
    return now - begin > tolerated(silence, poll, polling=quiet.polling)


def is_away_too_long(quiet: Silence, listening: float, now: float, *, away: float) -> bool:
    """Whether a plugin that named no time is away for more than `away` seconds, as heard since `listening`."""
    return quiet.away and not quiet.back_by_time and now - max(_last_beat_time(quiet, now), listening) > away


def _last_beat_time(quiet: Silence, now: float) -> float:
    return 0.0 if quiet.last_beat_time > now + SET_BACK else quiet.last_beat_time
