"""Telemetry around a switch: what a verdict compares, made from the windows that ingest keeps of each generation.

Rule: *after* is the newest run of the generation in question. *Before* is the generation that ran before it: the newest
one that its agent did not take back, for a failed remedy must not excuse the next; of its windows the newest ten
minutes, however long ago they were. The control group is what others counted since the switch. A level is compared with
what is usual of it once that was measured for long enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from services.ingest import windows
from services.ingest.anomaly import schedule, scoring
from services.ingest.plugin_state import PluginState
from services.ingest.windows import Window

# How much of the generation before is looked at (seconds): what came earlier says little about how it was at the end.
BEFORE = 600.0
# For how long a level must have been measured before anything is compared with it (seconds).
MEASURED = 600.0


class Comparison(NamedTuple):
    """Windows before and after a switch and of the control group.

    `first_beats`: the first beat of a generation ends a window of the one before, and is a beat of it all the same.
    """

    before: list[Window]
    after: list[Window]
    control: list[Window]
    peers: int
    first_beats: int


def compare(
    state: PluginState, peers: Iterable[PluginState], generation: int, switch: float, taken_back: Collection[int]
) -> Comparison:
    """What a verdict on a generation, switched to at `switch` (Unix seconds), rests on."""
    own = windows.read(state.windows)
    control = [windows.since(windows.read(peer.windows), switch) for peer in peers]
    counting = [counted for counted in control if counted]
    return Comparison(
        _before(own, generation, switch, taken_back),
        _last_run(own, generation),
        [window for counted in counting for window in counted],
        len(counting),
        int(state.generation == generation),
    )


def levels(state: PluginState, numbers: Mapping[str, float]) -> Iterator[tuple[str, scoring.Usual, float]]:
    """Each named number that has something usual to be compared with: its name, that, and what it is now."""
    usual = scoring.usual_levels(scoring.unpack(state.baseline[schedule.LAYOUT.size :]), MEASURED)
    for name in sorted(usual.keys() & numbers.keys()):
        yield name, usual[name], float(numbers[name])


def _before(own: list[Window], generation: int, switch: float, taken_back: Collection[int]) -> list[Window]:
    found: list[Window] = []
    seconds = 0.0
    for window in reversed(own):
        if window.end > switch + 1.0 or window.generation == generation or window.generation in taken_back:
            continue
        if found and window.generation != found[0].generation:
            continue
        if seconds >= BEFORE:
            break
        found.append(window)
        seconds += window.duration
    return found[::-1]


def _last_run(own: list[Window], generation: int) -> list[Window]:
    """The newest windows of a generation without another between them: it may have run before, and come back."""
    found: list[Window] = []
    for window in reversed(own):
        if window.generation == generation:
            found.append(window)
        elif found:
            break
    return found[::-1]
