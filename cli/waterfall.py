"""A trace as a waterfall: rows, times since the first moment, and a time axis without its idle stretches.

Rule: pure. A stretch in which nothing but waiting happens is narrowed to a mark, however long it was, so that the work
stays readable; what waited across it shows a line. Spans whose parent is not here stand at the root instead of being
lost; many equal siblings (polls) become one row.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

IDLE_SHARE = 0.08  # of the whole, from which a stretch without work is narrowed
IDLE_SECONDS = 0.05
MARK = 2  # columns a narrowed stretch takes
LEAST = 6  # columns a burst of work takes at least, where there is room
ALIKE = 3  # equal siblings from which they become one row
FULL, WAIT, GAP, EMPTY = "█", "─", "┆", " "


@dataclass(frozen=True)
class Span:
    """One span; times in seconds since the first moment of the trace."""

    id: str
    parent: str
    service: str
    name: str
    start: float
    end: float
    error: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the waterfall; `spans` are several when equal siblings share it."""

    spans: tuple[Span, ...]
    depth: int

    @property
    def start(self) -> float:
        """When the first of them began."""
        return self.spans[0].start

    @property
    def busy(self) -> float:
        """How long they took together, in seconds."""
        return sum(span.end - span.start for span in self.spans)

    @property
    def error(self) -> str:
        """What went wrong, empty when nothing did."""
        return next((span.error for span in self.spans if span.error), "")


@dataclass(frozen=True)
class Segment:
    """A stretch of time and the columns it takes; an idle one is narrowed."""

    start: float
    end: float
    first: int
    columns: int
    idle: bool

    def cells(self, span: Span) -> range:
        """The columns in which a span is seen here."""
        low, high = max(span.start, self.start), min(span.end, self.end)
        if low > high:
            return range(0)
        if self.idle:
            # Only what waits across all of it; what begins or ends at its edge does so in the work beside it.
            return range(self.first, self.first + self.columns) if (low, high) == (self.start, self.end) else range(0)
        length = self.end - self.start
        if not length:
            return range(self.first, self.first + self.columns)
        begin = min(self.columns - 1, int((low - self.start) / length * self.columns))
        end = math.ceil((high - self.start) / length * self.columns)
        return range(self.first + begin, self.first + min(self.columns, max(end, begin + 1)))


@dataclass(frozen=True)
class Axis:
    """The time axis: bursts of work between narrowed idle stretches."""

    width: int
    segments: tuple[Segment, ...]

    @property
    def narrowed(self) -> float:
        """Seconds of waiting that were narrowed."""
        return sum(segment.end - segment.start for segment in self.segments if segment.idle)

    def bar(self, spans: Iterable[Span]) -> str:
        """The cells of a row: work, waiting across an idle stretch, marks of idle stretches, nothing."""
        cells = [EMPTY] * self.width
        for segment in self.segments:
            if segment.idle:
                cells[segment.first] = GAP
        for span in spans:
            for segment in self.segments:
                for cell in segment.cells(span):
                    cells[cell] = WAIT if segment.idle else FULL
        return "".join(cells)


def rows(spans: Sequence[Span]) -> list[Row]:
    """Steps as a tree, each below its parent, by start; equal siblings that only polled share a row."""
    here = {span.id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, -span.end, span.id)):
        orphan = span.parent not in here or span.parent == span.id
        children["" if orphan else span.parent].append(span)
    found: list[Row] = []
    stack = [(row, 0) for row in reversed(_shared(children[""], children))]
    while stack:
        shared, depth = stack.pop()
        found.append(Row(shared, depth))
        below = [child for span in shared for child in children[span.id]]
        stack.extend((row, depth + 1) for row in reversed(_shared(below, children)))
    # Foreign spans may be each other's parents; they are shown all the same.
    seen = {span.id for row in found for span in row.spans}
    return found + [Row((span,), 0) for span in spans if span.id not in seen]


def _shared(siblings: Sequence[Span], children: Mapping[str, Sequence[Span]]) -> list[tuple[Span, ...]]:
    alike: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in siblings:
        if not span.error and not _deep(span, children):
            alike[span.service, span.name].append(span)
    shared: list[tuple[Span, ...]] = []
    done: set[str] = set()
    for span in siblings:
        group = alike.get((span.service, span.name), [])
        if span.id in done:
            continue
        if len(group) > ALIKE and span in group:
            shared.append(tuple(group))
            done.update(one.id for one in group)
        else:
            shared.append((span,))
    return shared


def _deep(span: Span, children: Mapping[str, Sequence[Span]]) -> bool:
    # A call and its answer on the other side is still one poll.
    below = children.get(span.id, ())
    return len(below) > 1 or any(one.error or children.get(one.id) for one in below)


def axis(spans: Sequence[Span], width: int) -> Axis:
    """A time axis of `width` columns over all spans, idle stretches narrowed; the shortest burst of work is seen."""
    total = max((span.end for span in spans), default=0.0)
    stretches = _stretches(_work(spans), total, width // (4 * MARK))
    bursts = sum(not idle for _, _, idle in stretches)
    room = width - (len(stretches) - bursts) * MARK
    least = max(1, min(LEAST, room // (2 * bursts)))
    shared = room - least * bursts
    worked = sum(end - start for start, end, idle in stretches if not idle)
    segments: list[Segment] = []
    first, passed = 0, 0.0
    for start, end, idle in stretches:
        columns = MARK
        if not idle:
            before = round(shared * passed)
            passed += (end - start) / worked if worked else 1 / bursts
            columns = least + round(shared * min(passed, 1.0)) - before
        segments.append(Segment(start, end, first, columns, idle))
        first += columns
    return Axis(width, tuple(segments))


def _work(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """Stretches in which something is done.

    A span that others work for (they begin while it lasts) only waits meanwhile: of it, the moments at which it begins
    and ends count.
    """
    known = {span.id: span for span in spans}
    below = [span for span in spans if span.parent in known and span.parent != span.id]
    waits = {span.parent for span in below if span.start < known[span.parent].end}
    found = [(span.start, span.end) for span in spans if span.id not in waits]
    found += [(moment, moment) for span in spans if span.id in waits for moment in (span.start, span.end)]
    merged: list[tuple[float, float]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _stretches(work: Sequence[tuple[float, float]], total: float, most: int) -> list[tuple[float, float, bool]]:
    """Bursts and, between them, the longest idle stretches (at most so many)."""
    least = max(IDLE_SECONDS, total * IDLE_SHARE)
    gaps = [(end, start) for (_, end), (start, _) in itertools.pairwise(work) if start - end >= least]
    gaps = sorted(sorted(gaps, key=lambda gap: gap[0] - gap[1])[:most])
    found: list[tuple[float, float, bool]] = []
    begun = min((start for start, _ in work), default=0.0)
    for end, following in gaps:
        found += [(begun, end, False), (end, following, True)]
        begun = following
    return [*found, (begun, max(total, begun), False)]
