"""Quiet hours: when a message waits for the morning.

Rule: a quiet night begins at the first moment the clocks of its zone show `start` and ends at the first moment after
that at which they show `end`. A time the spring gap skips is at the gap's end; of one that the autumn fold repeats the
first pass counts, so a night neither ends twice nor begins again. Nights that touch are one. What is critical never
waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from services.ops.notify.model import DAYS, QuietHours

# Quiet hours that never end are refused; this bounds the walk all the same.
LONGEST = timedelta(days=7)
DAY = timedelta(days=1)


def quiet_until(hours: Iterable[QuietHours], now: datetime) -> datetime:
    """The first time from `now` (aware) on that is not quiet; `now` itself when it is not."""
    known = tuple(hours)
    edge = now.astimezone(UTC)
    while edge - now < LONGEST:
        ends = [end for each in known for start, end in nights(each, edge) if start <= edge < end]
        if not ends:
            break
        edge = max(ends)
    return edge


def always_quiet(hours: Iterable[QuietHours], now: datetime) -> bool:
    """Whether these hours leave no time of a week to notify anybody."""
    return quiet_until(hours, now) - now >= LONGEST


def nights(hours: QuietHours, now: datetime) -> list[tuple[datetime, datetime]]:
    """The nights around a moment, beginning and end in UTC."""
    zone = ZoneInfo(hours.time_zone)
    today = now.astimezone(zone).date()
    days = {DAYS.index(day) for day in hours.days or DAYS}
    start, end = clock_time(hours.start), clock_time(hours.end)
    around = (today + DAY * shift for shift in (-2, -1, 0, 1))
    return [
        (first_time(day, start, zone), first_time(day if start < end else day + DAY, end, zone))
        for day in around
        if day.weekday() in days
    ]


def clock_time(text: str) -> timedelta:
    """HH:MM since midnight; 24:00 is the end of the day. Raises ValueError."""
    hour, found, minute = text.partition(":")
    good = found and len(hour) == len(minute) == 2 and hour.isascii() and (hour + minute).isdecimal()
    since = timedelta(hours=int(hour), minutes=int(minute)) if good and int(minute) < 60 else -DAY
    if not timedelta(0) <= since <= DAY:
        raise ValueError(f"{text!r} is no time of day")
    return since


def first_time(day: date, since_midnight: timedelta, zone: ZoneInfo) -> datetime:
    """When the clocks of a zone first show a time of a day, in UTC; the end of the gap when they never do."""
    wall = datetime.combine(day, time()) + since_midnight
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    # Both readings miss: one lies before the gap, one behind it. The clocks jump in between.
    before, behind = sorted((first, wall.replace(tzinfo=zone, fold=1).astimezone(UTC)))
    while behind - before > timedelta(seconds=1):
        middle = (before + (behind - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset():
            before = middle
        else:
            behind = middle
    return behind
