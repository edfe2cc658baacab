"""Waves: which plugin gets a build when, decided once and the same for whoever decides it again.

Rule: waves are data: a number of plugins or a share of the fleet, each the total reached when the wave is over. Plugins
on the canary list come first. The others are drawn in strata of (release, cms, region): within a stratum by a hash of
rollout and plugin, and the strata interleaved in proportion to their size, so every wave resembles the fleet
(systematic sampling: Madow & Madow 1944). A wave given as a number never takes more than half of a fleet, because a
first wave that is everybody protects nobody. Plugins that are offline are in no wave's size; they come last and join
when they return.
"""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from libs.common.errors import Invalid

MOST_WAVES = 20


@dataclass(frozen=True)
class Wave:
    """Where a wave ends: after so many plugins in all, or after so many percent of the fleet; one of the two."""

    plugins: int = 0
    percent: float = 0.0


DEFAULT_WAVES = (Wave(plugins=5), Wave(percent=20), Wave(percent=50), Wave(percent=100))


@dataclass(frozen=True)
class Candidate:
    """A plugin that should get the build, with what it is stratified by."""

    plugin: str
    merchant: str
    release: str
    cms: str
    region: str
    online: bool = True


@dataclass(frozen=True)
class Assignment:
    """A plugin's wave and rank, both from 1; whoever ranks lower is started earlier."""

    plugin: str
    wave: int
    start_order: int
    online: bool


def check(waves: Sequence[Wave]) -> None:
    """Raises Invalid, naming field, rule and remedy, for waves that make no sense."""
    if not 1 <= len(waves) <= MOST_WAVES:
        raise _invalid("waves", f"must be 1 to {MOST_WAVES}, they were {len(waves)}")
    for number, wave in enumerate(waves):
        field = f"waves[{number}]"
        if bool(wave.plugins) == bool(wave.percent):
            raise _invalid(field, "must give either plugins or percent")
        if wave.plugins < 0:
            raise _invalid(f"{field}.plugins", f"must be at least 1, it was {wave.plugins}")
        if wave.percent and not 0.0 < wave.percent <= 100.0:
            raise _invalid(f"{field}.percent", f"must be above 0 and at most 100, it was {wave.percent:g}")
        earlier = waves[number - 1] if number else Wave()
        falls = (wave.plugins and wave.plugins <= earlier.plugins) or (wave.percent and wave.percent <= earlier.percent)
        if falls:
            raise _invalid(field, "must reach further than the wave before it; totals are given, not additions")
    if waves[-1].percent != 100.0:
        raise _invalid(f"waves[{len(waves) - 1}].percent", "must be 100 in the last wave, or plugins would be left out")


def sizes(waves: Sequence[Wave], fleet: int) -> tuple[int, ...]:
    """How many plugins each wave adds in a fleet of this size; waves that would add none are left out."""
    check(waves)
    totals = [0]
    for wave in waves:
        if wave.plugins:
            total = min(wave.plugins, math.ceil(fleet / 2))
        else:
            total = math.ceil(wave.percent * fleet / 100.0 - 1e-9)
        if total > totals[-1]:
            totals.append(total)
    return tuple(later - earlier for earlier, later in itertools.pairwise(totals))


def draw(
    rollout: str, candidates: Iterable[Candidate], waves: Sequence[Wave], canaries: Collection[str] = ()
) -> tuple[Assignment, ...]:
    """The place of every candidate, in the order of their ranks. `canaries` names plugins or merchants."""
    fleet = {candidate.plugin: candidate for candidate in candidates}
    listed = set(canaries)
    first = [one for one in fleet.values() if one.online and {one.plugin, one.merchant} & listed]
    rest = [one for one in fleet.values() if one.online and not {one.plugin, one.merchant} & listed]
    away = [one for one in fleet.values() if not one.online]
    present = [*_interleaved(rollout, first), *_interleaved(rollout, rest)]
    added = sizes(waves, len(present)) or (0,)
    number_of = [number for number, size in enumerate(added, 1) for _ in range(size)]
    placed = list(zip(present, number_of, strict=True))
    placed += [(one, len(added)) for one in _interleaved(rollout, away)]
    return tuple(
        Assignment(one.plugin, number, start_order, one.online) for start_order, (one, number) in enumerate(placed, 1)
    )


def _interleaved(rollout: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    strata: dict[tuple[str, str, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        strata[candidate.release, candidate.cms, candidate.region].append(candidate)
    keyed = []
    for stratum, members in strata.items():
        # Each stratum begins at a place of its own between 0 and 1, so that small ones are not always last.
        offset = _fraction(rollout, *stratum)
        members.sort(key=lambda one: (_fraction(rollout, one.plugin), one.plugin))
        keyed += [((start_order + offset) / len(members), one.plugin, one) for start_order, one in enumerate(members)]
    return [one for _, _, one in sorted(keyed, key=lambda entry: entry[:2])]


def _fraction(*parts: str) -> float:
    """A number in [0, 1) that these words always give."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _invalid(field: str, rule: str) -> Invalid:
    return Invalid(f"{field} {rule}", reason="ROLLOUT_WAVES", field=field, rule=rule)
