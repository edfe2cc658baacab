"""Freeze windows: stretches of time in which nothing new is brought to a plugin.

Rule: a window begins whenever its cron expression (five fields, Debian's rules) matches on the clocks of its IANA time
zone, and lasts its duration on those clocks, never less in elapsed time: a weekend until Monday 08:00 ends at 08:00
also when the clocks change, or later, not earlier. A start that the spring gap skips is at the gap's end; one that the
autumn fold repeats is at its first pass. A window that cannot be read freezes, since nobody knows what it was meant to
protect. What returns to what ran before is not frozen; policy says so, not this file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from libs.common.errors import Invalid

MOST = 50
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=31)
# Windows that follow one another without a gap are followed this many times; the thaw is then "not before".
LINKS = 100
# Longer than any shift of clocks: a look back from here misses no start that a fold put before `now`.
SHIFT = timedelta(hours=3)
# 29 February comes back within eight years (1896, 1904).
SOON = timedelta(days=8 * 366 + 1)
UNREADABLE = timedelta(hours=1)


@dataclass(frozen=True)
class FreezeWindow:
    """One window: when it begins (`cron` on the clocks of `time_zone`), how long it lasts, and why there is one."""

    cron: str
    time_zone: str
    duration: timedelta
    reason: str = ""


@dataclass(frozen=True)
class Frozen:
    """Changes are frozen until this moment (UTC), not before; the window that says so, and a sentence."""

    until: datetime
    window: FreezeWindow
    reason: str


def frozen_until(windows: Iterable[FreezeWindow], now: datetime) -> Frozen | None:
    """Until when changes are frozen at `now` (aware), None when they are not; windows that touch are one."""
    known = tuple(windows)
    found: Frozen | None = None
    edge = now.astimezone(UTC)
    for _ in range(LINKS):
        latest = max((each for each in (_covers(window, edge) for window in known) if each), key=_until, default=None)
        if latest is None:
            break
        # The first window is the one people know; later ones only move the end.
        found = latest if found is None else Frozen(latest.until, found.window, found.reason)
        edge = latest.until
    if found is None:
        return None
    local = _local(found)
    return Frozen(found.until, found.window, f"changes are frozen until {local}: {found.reason}")


def check(window: FreezeWindow, *, field: str = "freeze_window") -> None:
    """Raises Invalid, naming field, rule and remedy, for a window that cannot be read or never begins."""
    try:
        zone = ZoneInfo(window.time_zone)
    except (ValueError, OSError, LookupError):
        raise _invalid(
            f"{field}.time_zone", f"{window.time_zone[:40]!r} is no IANA time zone", "write, for example, Europe/Paris"
        ) from None
    if not SHORTEST <= window.duration <= LONGEST:
        raise _invalid(f"{field}.duration", "1 minute to 31 days", "for longer, engage a kill switch")
    remedy = "write five fields: minute hour day-of-month month day-of-week, for example 0 18 * * 5"
    if len(window.cron) > 100 or len(window.cron.split()) != 5:
        raise _invalid(f"{field}.cron", f"{window.cron[:100]!r} has not five fields", remedy)
    # Any moment will do: whether an expression ever matches does not depend on it.
    since = datetime(2000, 1, 1, tzinfo=zone)
    try:
        start = next(CronSim(window.cron, since), None)
    except (CronSimError, ValueError, OverflowError) as error:
        raise _invalid(f"{field}.cron", f"{window.cron!r}: {error}".lower(), remedy) from None
    if start is None or start - since > SOON:
        raise _invalid(f"{field}.cron", f"{window.cron!r} never matches", remedy)


def check_all(windows: tuple[FreezeWindow, ...], *, field: str = "freeze_windows") -> None:
    """Raises Invalid, naming the window that makes no sense by its position."""
    if len(windows) > MOST:
        raise _invalid(field, f"at most {MOST} windows", "join those that follow one another")
    for place, window in enumerate(windows):
        check(window, field=f"{field}[{place}]")


def _covers(window: FreezeWindow, now: datetime) -> Frozen | None:
    try:
        end = _end(window, now)
    except (CronSimError, ValueError, OSError, LookupError, OverflowError):
        return Frozen(now + UNREADABLE, window, f"the window {window.cron!r} in {window.time_zone!r} cannot be read")
    why = window.reason or f"{window.cron} for {window.duration}"
    return Frozen(end, window, why) if end and end > now else None


def _end(window: FreezeWindow, now: datetime) -> datetime | None:
    """The latest end of the windows that began last, no later than `now`: a fold prolongs one beyond its followers."""
    zone = ZoneInfo(window.time_zone)
    last: datetime | None = None
    end: datetime | None = None
    for start in CronSim(window.cron, (now + SHIFT).astimezone(zone), reverse=True):
        began = start.astimezone(UTC)
        if began > now:
            continue
        last = last or began
        if last - began > SHIFT:
            break
        # Arithmetic on an aware time is that of the clock on the wall; both passes of a fold belong to it.
        wall = (start + window.duration).replace(fold=1).astimezone(UTC)
        end = max(end or wall, began + window.duration, wall)
    return end


def _until(frozen: Frozen) -> datetime:
    return frozen.until


def _local(frozen: Frozen) -> str:
    try:
        return f"{frozen.until.astimezone(ZoneInfo(frozen.window.time_zone)):%Y-%m-%d %H:%M %Z}"
    except (ValueError, OSError, LookupError):
        return f"{frozen.until:%Y-%m-%d %H:%M} UTC"


def _invalid(field: str, rule: str, remedy: str) -> Invalid:
    return Invalid(f"{field}: {rule}; {remedy}", reason="FREEZE_WINDOW", field=field, rule=rule, remedy=remedy)
