"""Windows of differences: what a plugin counted between two of its beats, the newest 64 of them, in a few bytes.

Rule: a window is the difference between two beats, so merged or repeated beats neither lose nor double. The newest
eight stay as they came. Older ones are folded with their neighbours while nothing went wrong in them; beyond the
newest forty, those of one hour and generation become one. Sums over the day survive, and the row stays small.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

MOST_WINDOWS = 64
UNFOLDED = 8  # newest windows that are never folded
SINGLE = 40  # newest windows that are folded only when nothing went wrong in them
FOLDED_BEATS = 16
HOUR = 3600.0
DAY = 86_400.0
# A start is computed from an end and a rounded duration.
SLACK = 0.005

LAYOUT = struct.Struct("<dfIIIHHI")
SIZE = LAYOUT.size
MOST = 2**32 - 1
MOST_SHORT = 2**16 - 1


class Window(NamedTuple):
    """Counts between two beats of one generation. `end` is in Unix seconds of ingest's clock, `duration` in seconds."""

    end: float
    duration: float
    errors: int
    attempts: int
    failures: int
    signature_failures: int
    beats: int
    generation: int

    @property
    def start(self) -> float:
        """When the earlier of the two beats arrived."""
        return self.end - self.duration

    @property
    def quiet(self) -> bool:
        """Whether nothing went wrong in it."""
        return not (self.errors or self.failures or self.signature_failures)


class Sums(NamedTuple):
    """Counts over several windows; `duration` in seconds."""

    beats: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    duration: float = 0.0
    signature_failures: int = 0


def pack(window: Window) -> bytes:
    """The 32 bytes of a window; counts beyond their field stay at its maximum."""
    end, duration, errors, attempts, failures, signature_failures, beats, generation = window
    return LAYOUT.pack(
        end,
        duration,
        min(errors, MOST),
        min(attempts, MOST),
        min(failures, MOST),
        min(signature_failures, MOST_SHORT),
        min(beats, MOST_SHORT),
        min(generation, MOST),
    )


def read(packed: bytes) -> list[Window]:
    """Every window, oldest first."""
    return [Window._make(values) for values in LAYOUT.iter_unpack(packed)]


def newest_first(packed: bytes) -> Iterator[Window]:
    """Every window, newest first, unpacked one at a time."""
    for offset in range(len(packed) - SIZE, -1, -SIZE):
        yield Window._make(LAYOUT.unpack_from(packed, offset))


def append(packed: bytes, window: Window) -> bytes:
    """The windows with one more, folded as the rule says."""
    packed += pack(window)
    count = len(packed) // SIZE
    if count > UNFOLDED + 1:
        packed = _fold(packed, count - UNFOLDED - 2, _both_quiet)
        count = len(packed) // SIZE
    if count > SINGLE + 1:
        packed = _fold(packed, count - SINGLE - 2, _same_hour)
        count = len(packed) // SIZE
    return packed if count <= MOST_WINDOWS else packed[(count - MOST_WINDOWS) * SIZE :]


def total(windows: Iterable[Window]) -> Sums:
    """Counts of all of them together."""
    beats = errors = attempts = failures = signatures = 0
    duration = 0.0
    for window in windows:
        beats += window.beats
        errors += window.errors
        attempts += window.attempts
        failures += window.failures
        signatures += window.signature_failures
        duration += window.duration
    return Sums(beats, errors, attempts, failures, duration, signatures)


def since(windows: Iterable[Window], time: float) -> list[Window]:
    """Those that start no earlier than `time`."""
    return [window for window in windows if window.start >= time - SLACK]


def _fold(packed: bytes, index: int, alike: Callable[[Window, Window], bool]) -> bytes:
    offset = index * SIZE
    older = Window._make(LAYOUT.unpack_from(packed, offset))
    newer = Window._make(LAYOUT.unpack_from(packed, offset + SIZE))
    if older.generation != newer.generation or not alike(older, newer):
        return packed
    merged = Window(
        newer.end,
        newer.end - older.start,
        older.errors + newer.errors,
        older.attempts + newer.attempts,
        older.failures + newer.failures,
        older.signature_failures + newer.signature_failures,
        older.beats + newer.beats,
        newer.generation,
    )
    return packed[:offset] + pack(merged) + packed[offset + 2 * SIZE :]


def _both_quiet(older: Window, newer: Window) -> bool:
    return (
        older.quiet
        and newer.quiet
        and older.beats + newer.beats <= FOLDED_BEATS
        and newer.end - older.start <= HOUR
        and abs(newer.start - older.end) <= 1.0
    )


def _same_hour(older: Window, newer: Window) -> bool:
    return older.end // HOUR == newer.end // HOUR
