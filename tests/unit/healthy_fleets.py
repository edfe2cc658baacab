"""Healthy fleets as they are: days and nights, noise with a memory, bursts, restarts, and what befalls everybody."""

import math
from collections import deque
from dataclasses import dataclass, field
from random import Random

from services.ingest.anomaly import scoring
from services.ingest.anomaly.scoring import ERROR_RATE, FAIL_RATE, Baseline, Change, Reading, Reference

DAY = 86_400.0
LATENCY = "latency_ms"


@dataclass
class Member:
    """One plugin: its own level, share of failures, place on the globe, and what it is going through."""

    traffic: float
    latency: float
    failing: float
    erring: float
    phase: float
    drift: float
    wander: float = 0.0
    restarting: int = 0
    bursting: int = 0
    baseline: Baseline = field(default_factory=Baseline)
    recent: dict[str, deque[Reading]] = field(default_factory=dict)
    # What a test breaks: times the usual latency, failures and errors.
    worse: dict[str, float] = field(default_factory=dict)


def member(random: Random) -> Member:
    """A plugin unlike the others; one in ten lives on the other side of the globe."""
    far = random.random() < 0.1
    return Member(
        traffic=math.exp(random.gauss(0.0, 0.7)) * 0.5,
        latency=math.exp(random.gauss(4.5, 0.4)),
        failing=random.uniform(0.002, 0.03),
        erring=random.uniform(0.0002, 0.004),
        phase=random.gauss(math.pi if far else 0.0, 0.4),
        drift=random.uniform(-0.1, 0.1),
    )


def poisson(random: Random, mean: float) -> int:
    """How often something happens that happens `mean` times on average (Knuth for few, normal for many)."""
    if mean > 25.0:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, random.random()
    while product > limit:
        count += 1
        product *= random.random()
    return count


def window(random: Random, one: Member, at: float, seconds: float, common: float) -> dict[str, Reading]:
    """What a plugin shows in one window. `common` is what befalls everybody, 1 when nothing does."""
    wave = math.sin(2.0 * math.pi * at / DAY + one.phase)
    one.wander = 0.9 * one.wander + random.gauss(0.0, 0.05)
    week = seconds / (7.0 * DAY)
    if random.random() < week:
        one.restarting = 2
    if random.random() < week:
        one.bursting = 2
    latency = one.latency * common * math.exp(
        0.2 * wave + one.wander + random.gauss(0.0, 0.08) + one.drift * math.sin(2.0 * math.pi * at / (7.0 * DAY))
    )  # fmt: skip
    attempts = poisson(random, one.traffic * seconds * (1.0 + 0.6 * wave))
    # Failures come in clusters: their rate itself varies from window to window.
    clustered = random.gammavariate(3.0, 1.0 / 3.0)
    failing, erring = one.failing * common * clustered, one.erring * common * clustered
    if one.restarting:
        one.restarting -= 1
        latency *= 3.0
        erring += 5.0 / max(attempts, 5)
    if one.bursting:
        one.bursting -= 1
        failing += 0.3
    worse = one.worse
    failures = min(attempts, poisson(random, attempts * failing * worse.get(FAIL_RATE, 1.0)))
    exposure = attempts + seconds / 60.0
    errors = poisson(random, exposure * erring * worse.get(ERROR_RATE, 1.0))
    found = {ERROR_RATE: Reading(errors, exposure), LATENCY: Reading(math.log(latency * worse.get(LATENCY, 1.0)))}
    if attempts:
        found[FAIL_RATE] = Reading(failures, attempts)
    return found


def summed(one: Member, name: str, reading: Reading) -> Reading:
    """A count over the last five windows, a level as it is."""
    if not reading.exposure:
        return reading
    kept = one.recent.setdefault(name, deque(maxlen=5))
    kept.append(reading)
    return Reading(sum(each.value for each in kept), sum(each.exposure for each in kept))


@dataclass
class Fleet:
    """Plugins of one release, with what their peers showed in the window before (as a sweep finds it out)."""

    random: Random
    members: list[Member]
    seconds: float
    at: float = 0.0
    references: dict[str, Reference] = field(default_factory=dict)
    windows: int = 0

    def step(self, common: float = 1.0, *, alone: bool = False) -> list[tuple[int, Change, str]]:
        """One window of everybody; who says something, and about which figure."""
        changes: list[tuple[int, Change, str]] = []
        shown: dict[str, list[tuple[scoring.Figure, Reading]]] = {ERROR_RATE: [], FAIL_RATE: [], LATENCY: []}
        for number, one in enumerate(self.members):
            found = window(self.random, one, self.at, self.seconds, common)
            evaluation = scoring.evaluate(one.baseline, found, self.seconds, self.references)
            one.baseline = evaluation.baseline
            self.windows += 1
            if evaluation.change is not Change.NONE:
                changes.append((number, evaluation.change, evaluation.figure))
            for name, reading in found.items():
                shown[name].append((one.baseline.figures[name], summed(one, name, reading)))
        self.at += self.seconds
        if not alone:
            self.references = {name: scoring.reference(peers) for name, peers in shown.items()}
        return changes


def fleet(seed: int, size: int, seconds: float) -> Fleet:
    """A fleet of so many plugins that beat each so many seconds."""
    random = Random(seed)  # noqa: S311 - a simulation
    return Fleet(random, [member(random) for _ in range(size)], seconds)
