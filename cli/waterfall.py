"""A trace as a waterfall: rows, times since the first moment, and a time axis without its idle stretches.

Rule: pure. A stretch in which nothing but waiting happens is narrowed to a mark, however long it was, so that the work
stays readable; what waited across it shows a line. Spans whose parent is not here stand at the root instead of being
lost; many equal siblings (polls) become one row.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

IDLE_SHARE = 0.08  # of the whole, from which a stretch without work is narrowed
IDLE_SECONDS = 0.05
MARK = 2  # columns a narrowed stretch takes
ALIKE = 3  # equal siblings from which they become one row
FULL, WAIT, GAP, EMPTY = "█", "─", "┆", " "


@dataclass(frozen=True)
class Step:
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
    """One line of the waterfall; `steps` are several when equal siblings share it."""

    steps: tuple[Step, ...]
    depth: int

    @property
    def start(self) -> float:
        """When the first of them began."""
        return self.steps[0].start

    @property
    def busy(self) -> float:
        """How long they took together, in seconds."""
        return sum(step.end - step.start for step in self.steps)

    @property
    def error(self) -> str:
        """What went wrong, empty when nothing did."""
        return next((step.error for step in self.steps if step.error), "")


@dataclass
class Axis:
    """Columns of the time axis: pieces of work between narrowed idle stretches."""

    width: int
    # (start, end, first column, columns); a piece with `idle` is narrowed.
    pieces: list[tuple[float, float, int, int, bool]] = field(default_factory=list)

    def column(self, moment: float) -> int:
        """The column of a moment."""
        for start, end, first, columns, idle in self.pieces:
            if moment <= end or (start, end) == self.pieces[-1][:2]:
                if idle:
                    return first if moment <= start else first + columns
                share = (moment - start) / (end - start) if end > start else 0.0
                return min(first + columns, first + round(share * columns))
        return 0

    def bar(self, steps: Iterable[Step]) -> str:
        """The cells of a row: work, waiting across an idle stretch, marks of idle stretches, nothing."""
        cells = [EMPTY] * self.width
        for _, _, first, columns, idle in self.pieces:
            if idle:
                cells[first : first + columns] = [GAP, *[EMPTY] * (columns - 1)]
        for step in steps:
            first = min(self.column(step.start), self.width - 1)
            last = max(first + 1, self.column(step.end))
            for cell in range(first, min(last, self.width)):
                cells[cell] = WAIT if self._idle(cell) else FULL
        return "".join(cells)

    def _idle(self, cell: int) -> bool:
        return any(idle and first <= cell < first + columns for _, _, first, columns, idle in self.pieces)


def rows(steps: Sequence[Step]) -> list[Row]:
    """Steps as a tree, each below its parent, by start; equal siblings without children share a row."""
    here = {step.id for step in steps}
    children: dict[str, list[Step]] = defaultdict(list)
    for step in sorted(steps, key=lambda step: (step.start, -step.end, step.id)):
        orphan = step.parent not in here or step.parent == step.id
        children["" if orphan else step.parent].append(step)
    found: list[Row] = []
    seen: set[str] = set()
    stack = [(row, 0) for row in reversed(_shared(children[""], children))]
    while stack:
        shared, depth = stack.pop()
        found.append(Row(shared, depth))
        seen.update(step.id for step in shared)
        below = _shared(children[shared[0].id], children) if len(shared) == 1 else []
        stack.extend((row, depth + 1) for row in reversed(below))
    # Foreign spans may be each other's parents; they are shown all the same.
    lost = [step for step in steps if step.id not in seen]
    return found + [Row((step,), 0) for step in lost]


def _shared(siblings: Sequence[Step], children: dict[str, list[Step]]) -> list[tuple[Step, ...]]:
    alike: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in siblings:
        if not step.error and not _deep(step, children):
            alike[step.service, step.name].append(step)
    shared: list[tuple[Step, ...]] = []
    done: set[str] = set()
    for step in siblings:
        group = alike.get((step.service, step.name), [])
        if step.id in done:
            continue
        if len(group) > ALIKE and step in group:
            shared.append(tuple(group))
            done.update(one.id for one in group)
        else:
            shared.append((step,))
    return shared


def _deep(step: Step, children: dict[str, list[Step]]) -> bool:
    # A call and its answer on the other side is still one poll.
    below = children.get(step.id, [])
    return len(below) > 1 or any(one.error or children.get(one.id) for one in below)


def axis(steps: Sequence[Step], width: int) -> Axis:
    """A time axis of `width` columns over all steps, idle stretches narrowed."""
    total = max((step.end for step in steps), default=0.0)
    pieces = _pieces(_work(steps), total)
    marks = sum(1 for _, _, idle in pieces if idle)
    room = max(1, width - marks * MARK)
    worked = sum(end - start for start, end, idle in pieces if not idle)
    made = Axis(width)
    first, passed = 0, 0.0
    for start, end, idle in pieces:
        if idle:
            columns = MARK
        else:
            before = round(room * passed / worked) if worked else 0
            passed += end - start
            columns = (round(room * passed / worked) if worked else room) - before
        made.pieces.append((start, end, first, columns, idle))
        first += columns
    return made


def _work(steps: Sequence[Step]) -> list[tuple[float, float]]:
    """Stretches in which something is done: what leaves do, and the moments at which longer steps begin and end."""
    parents = {step.parent for step in steps}
    found = [(step.start, step.end) for step in steps if step.id not in parents]
    found += [(moment, moment) for step in steps if step.id in parents for moment in (step.start, step.end)]
    merged: list[tuple[float, float]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _pieces(work: Sequence[tuple[float, float]], total: float) -> list[tuple[float, float, bool]]:
    least = max(IDLE_SECONDS, total * IDLE_SHARE)
    pieces: list[tuple[float, float, bool]] = []
    begun = 0.0
    for (_, end), (following, _) in itertools.pairwise(work):
        if following - end >= least:
            pieces += [(begun, end, False), (end, following, True)]
            begun = following
    pieces.append((begun, max(total, begun), False))
    return pieces


def idle(made: Axis) -> float:
    """Seconds that were narrowed."""
    return sum(end - start for start, end, _, _, narrowed in made.pieces if narrowed)
