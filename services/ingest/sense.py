"""When a plugin's detector listens, and what it makes of what it hears.

Rule: most beats say nothing new, so the detector is asked seldom: a quarter of an hour after it was asked last, a
minute when the beat names levels, ten seconds when something went wrong or when it is suspicious already. Nothing is
lost in between: it hears the difference of the counters since then, and what went wrong last apart from the quiet
before, so that quiet hides nothing. What began before the last apply or the end of an incident is not heard. Peers are
plugins of the same release that were asked not long ago, as this process heard them; each plugin is compared with the
half it is not in, so that nobody excuses itself.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from typing import NamedTuple

from services.ingest import anomaly, detection
from services.ingest.anomaly import Figure, Heard, Reading, Reference, Say
from services.ingest.detection import TELEMETRY_ANOMALY, Anomaly
from services.ingest.telemetry import Beat, Pulse
from services.ingest.windows import SLACK, Window


class Rules(NamedTuple):
    """How long after it listened last the detector listens again, in seconds; how many peers are kept, and how long."""

    lull: float = 900.0
    levels: float = 60.0
    wrong: float = 10.0
    # A score (nats) from which on it counts as suspicious.
    suspicious: float = 5.0
    peers: int = 64
    releases: int = 256
    fresh: float = 1800.0
    # Seconds for which what peers show is not computed again.
    kept: float = 10.0


RULES = Rules()
BIT = detection.BIT[TELEMETRY_ANOMALY]


class Mark(NamedTuple):
    """Where the counters stood when the detector listened last, and in which boot (a checksum of its id)."""

    at: float = 0.0
    boot: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    suspicious: bool = False


LAYOUT = struct.Struct("<dIQQQ?")
NEVER = Mark()


class Said(NamedTuple):
    """What listening came to: an anomaly that opens, and whether the plugin is like itself (None: not asked)."""

    anomaly: Anomaly | None = None
    well: bool | None = None


NOTHING = Said()


def due(pulse: Pulse, beat: Beat, window: Window, rules: Rules = RULES) -> bool:
    """Whether the detector is to listen to this beat. `pulse` has it counted already."""
    since = pulse.heard - pulse.listened
    if since < rules.wrong:
        return False
    if since >= rules.lull or not window.quiet or pulse.open_types & BIT:
        return True
    if beat.numbers and since >= rules.levels:
        return True
    return bool(pulse.sense) and bool(pulse.sense[LAYOUT.size - 1])


def read(sense: bytes) -> Mark:
    """The mark of a plugin; NEVER when there is none."""
    return Mark._make(LAYOUT.unpack_from(sense)) if sense else NEVER


class Shown(NamedTuple):
    """What is usual for a plugin, what it showed last, and when."""

    at: float
    figures: dict[str, Figure]
    found: dict[str, Reading]


class Peers:
    """What plugins of the same release show, as far as this process hears them. Bounded; nothing of it is stored."""

    def __init__(self, rules: Rules = RULES) -> None:
        self._rules = rules
        self._known: OrderedDict[tuple[str, str, int], OrderedDict[str, Shown]] = OrderedDict()
        self._made: dict[tuple[str, str, int], tuple[float, dict[str, Reference]]] = {}

    def show(self, key: tuple[str, str], plugin: str, shown: Shown) -> None:
        """Keeps what a plugin of (package, release) showed; the one that showed longest ago is forgotten."""
        place = (*key, _half(plugin))
        kept = self._known.setdefault(place, OrderedDict())
        self._known.move_to_end(place)
        kept[plugin] = shown
        kept.move_to_end(plugin)
        if len(kept) > self._rules.peers:
            kept.popitem(last=False)
        while len(self._known) > self._rules.releases:
            gone, _ = self._known.popitem(last=False)
            self._made.pop(gone, None)

    def references(self, key: tuple[str, str], plugin: str, at: float) -> dict[str, Reference]:
        """What the plugin's peers show, by figure."""
        place = (*key, 1 - _half(plugin))
        made = self._made.get(place)
        if made and 0.0 <= at - made[0] < self._rules.kept:
            return made[1]
        found = self._compute(place, at)
        if place in self._known:
            self._made[place] = (at, found)
        return found

    def _compute(self, place: tuple[str, str, int], at: float) -> dict[str, Reference]:
        shown = [one for one in self._known.get(place, {}).values() if at - one.at <= self._rules.fresh]
        if len(shown) < anomaly.RULES.peers:
            return {}
        names = {name for one in shown for name in one.found}
        return {
            name: anomaly.reference((one.figures[name], one.found[name]) for one in shown if name in one.found)
            for name in names
        }


def listen(pulse: Pulse, package: str, beat: Beat, window: Window, peers: Peers, rules: Rules = RULES) -> Said:
    """Has the detector hear what was counted since it listened last; the pulse (changed in place) keeps it."""
    mark, at, boot = read(pulse.sense), pulse.heard, zlib.crc32(beat.boot.encode())
    detector = anomaly.unpack(pulse.sense[LAYOUT.size :])
    if pulse.watch_from > mark.at:
        detector = anomaly.calmed(detector)
    told: list[Heard] = []
    # Of the first beats of a boot nobody knows since when their counters run.
    if mark.boot == boot and window.start >= pulse.watch_from - SLACK:
        key = (package, pulse.release)
        references = peers.references(key, pulse.plugin, at)
        found = anomaly.readings(window, beat.numbers)
        before = _before(pulse, mark, window)
        if before is not None:
            told.append(anomaly.hear(detector, anomaly.readings(before), before.duration, references))
            detector = told[-1].detector
        told.append(anomaly.hear(detector, found, window.duration, references))
        detector = told[-1].detector
        peers.show(key, pulse.plugin, Shown(at, detector.figures, found))
    suspicious = detector.open or any(figure.score >= rules.suspicious for figure in detector.figures.values())
    mark = Mark(at, boot, pulse.errors, pulse.attempts, pulse.failures, suspicious)
    pulse.sense, pulse.listened, pulse.unsaved = LAYOUT.pack(*mark) + anomaly.pack(detector), at, True
    for heard in told:
        if heard.say is Say.OPEN:
            return Said(detection.unlike(heard.figure, heard.usual, heard.present, heard.reason))
    return Said(well=not detector.open) if told else NOTHING


def _before(pulse: Pulse, mark: Mark, window: Window) -> Window | None:
    """What was counted between the mark and the newest window; None when there is nothing between."""
    errors = pulse.errors - window.errors - mark.errors
    attempts = pulse.attempts - window.attempts - mark.attempts
    failures = pulse.failures - window.failures - mark.failures
    seconds = window.start - mark.at
    if mark.at < pulse.watch_from or seconds <= SLACK or min(errors, attempts, failures) < 0:
        return None
    return Window(window.start, seconds, errors, attempts, failures, 0, 1, pulse.generation)


def _half(plugin: str) -> int:
    return zlib.crc32(plugin.encode()) & 1
