"""Batching: many facts, few messages.

Rule: the first fact after a calm waits one window for company; while a route is busy each next message waits twice as
long as the last one did, up to ten minutes, or one minute for what is critical. The same news again within the repeat
window is counted with the message that told it and sent to nobody. A message shows the worst lines first and says how
many more there are, so its size does not grow with the flood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.ops.notify.model import Notice, QuietHours, Severity
from services.ops.notify.quiet import loud_again

SHOWN = 20
LONGEST_GAP = timedelta(minutes=10)
LONGEST_URGENT_GAP = timedelta(minutes=1)
# A route is calm once this many gaps went by without a message.
CALM = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """When a route's last message was due, and how long it waited for company."""

    due: datetime
    gap: timedelta


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message will tell of: how many facts of which kinds, and the lines that are shown."""

    severity: Severity = Severity.LOW
    facts: int = 0
    repeats: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[Notice, ...] = ()

    def add(self, notices: Iterable[Notice]) -> Batch:
        """With more to tell."""
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

    def repeat(self, times: int) -> Batch:
        """With more of what it tells already."""
        return replace(self, repeats=self.repeats + times)


def next_pace(last: Pace | None, window: timedelta, now: datetime, *, urgent: bool) -> Pace:
    """When the message that a fact opens now is due, quiet hours aside."""
    longest = max(window, LONGEST_URGENT_GAP if urgent else LONGEST_GAP)
    if last is None or now >= last.due + CALM * last.gap:
        return Pace(now + window, window)
    gap = min(last.gap * 2, longest) if last.gap else window
    return Pace(max(now + window, last.due + gap), gap)


def due(pace: Pace, hours: Iterable[QuietHours], *, urgent: bool) -> datetime:
    """When a message goes out: at its pace, and not at night unless it is critical."""
    return pace.due if urgent else loud_again(hours, pace.due)


def sift(notices: Iterable[Notice], known: Iterable[str]) -> tuple[list[Notice], list[Notice]]:
    """News, and what is news no more: told already, going by the keys that are known, or said twice in here."""
    news: list[Notice] = []
    again: list[Notice] = []
    seen = set(known)
    for notice in notices:
        (again if notice.key in seen else news).append(notice)
        seen.add(notice.key)
    return news, again
