"""What plugins of the same release show at the same time, as far as this process received their beats.

Rule: each plugin is compared with the half it is not in, so that nobody excuses itself. Bounded; nothing is stored.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import NamedTuple

from services.ingest.anomaly import scoring
from services.ingest.anomaly.scoring import Figure, Reading, Reference


class PeerRules(NamedTuple):
    """How many peers and halves of releases are remembered; times in seconds."""

    peers: int = 64
    releases: int = 256
    fresh: float = 1800.0
    # For so long a reference is not computed again.
    cached: float = 10.0


class PeerSample(NamedTuple):
    """What is usual for a plugin, its newest readings, and when they were taken."""

    at: float
    figures: dict[str, Figure]
    readings: dict[str, Reading]


class Peers:
    """The newest samples by package and release."""

    def __init__(self, rules: PeerRules = PeerRules()) -> None:  # noqa: B008 - immutable
        self._rules = rules
        self._samples: OrderedDict[tuple[str, str, int], OrderedDict[str, PeerSample]] = OrderedDict()
        self._references: dict[tuple[str, str, int], tuple[float, dict[str, Reference]]] = {}

    def add(self, release: tuple[str, str], plugin: str, sample: PeerSample) -> None:
        """Remembers the sample of a plugin of (package, release); the oldest one is forgotten."""
        half = (*release, _half(plugin))
        samples = self._samples.setdefault(half, OrderedDict())
        self._samples.move_to_end(half)
        samples[plugin] = sample
        samples.move_to_end(plugin)
        if len(samples) > self._rules.peers:
            samples.popitem(last=False)
        while len(self._samples) > self._rules.releases:
            gone, _ = self._samples.popitem(last=False)
            self._references.pop(gone, None)

    def references(self, release: tuple[str, str], plugin: str, at: float) -> dict[str, Reference]:
        """What the plugin's peers show, by figure."""
        half = (*release, 1 - _half(plugin))
        cached = self._references.get(half)
        if cached and 0.0 <= at - cached[0] < self._rules.cached:
            return cached[1]
        computed = self._compute(half, at)
        if half in self._samples:
            self._references[half] = (at, computed)
        return computed

    def _compute(self, half: tuple[str, str, int], at: float) -> dict[str, Reference]:
        fresh = [one for one in self._samples.get(half, {}).values() if at - one.at <= self._rules.fresh]
        if len(fresh) < scoring.RULES.peers:
            return {}
        names = {name for one in fresh for name in one.readings}
        return {
            name: scoring.reference((one.figures[name], one.readings[name]) for one in fresh if name in one.readings)
            for name in names
        }


def _half(plugin: str) -> int:
    return zlib.crc32(plugin.encode()) & 1
