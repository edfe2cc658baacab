"""Batching: many facts, few messages.

Rule: the first fact after a pause waits one window for more; while a route is busy each next message waits twice as
long as the last one did, up to ten minutes, or one minute for what is critical. The same again within the repeat window
is counted with the message that reported it and sent to nobody. A message shows the worst lines first and says how
many more there are, so its size does not grow with the flood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.ops.notify.model import Notice, QuietHours
from services.ops.notify.quiet_hours import quiet_until
from services.ops.severity import Severity

SHOWN = 20
LONGEST_INTERVAL = timedelta(minutes=10)
LONGEST_URGENT_INTERVAL = timedelta(minutes=1)
# A route starts again with its window once this many intervals went by without a message.
QUIET_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class Throttle:
    """When a route's last message was due, and how long it waited for more facts."""

    due_time: datetime
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message reports: how many facts of which kinds, and the lines that are shown."""

    severity: Severity = Severity.LOW
    facts: int = 0
    repeats: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[Notice, ...] = ()

    def add(self, notices: Iterable[Notice]) -> Batch:
        """With more facts."""
        more = list(notices)
        if not more:
            return self
        shown = sorted((*self.lines, *more), key=lambda line: (-line.severity, line.time, line.event))[:SHOWN]
        return Batch(
            severity=max(self.severity, *(notice.severity for notice in more)),
            facts=self.facts + len(more),
            repeats=self.repeats,
            kinds=dict(Counter(self.kinds) + Counter(notice.fact for notice in more)),
            lines=tuple(shown),
        )


def next_throttle(last: Throttle | None, window: timedelta, now: datetime, *, urgent: bool) -> Throttle:
    """When the message that a fact opens now is due, quiet hours aside."""
    longest = max(window, LONGEST_URGENT_INTERVAL if urgent else LONGEST_INTERVAL)
    if last is None or now >= last.due_time + QUIET_INTERVALS * last.interval:
        return Throttle(now + window, window)
    interval = min(last.interval * 2, longest) if last.interval else window
    return Throttle(max(now + window, last.due_time + interval), interval)


def due_time(throttle: Throttle, hours: Iterable[QuietHours], *, urgent: bool) -> datetime:
    """When a message goes out: as throttled, and not in quiet hours unless it is critical."""
    return throttle.due_time if urgent else quiet_until(hours, throttle.due_time)


def deduplicated(notices: Iterable[Notice], known: Iterable[str]) -> tuple[list[Notice], list[Notice]]:
    """What is new, and what repeats: its key is known, or comes twice in here."""
    new: list[Notice] = []
    repeats: list[Notice] = []
    seen = set(known)
    for notice in notices:
        (repeats if notice.key in seen else new).append(notice)
        seen.add(notice.key)
    return new, repeats
