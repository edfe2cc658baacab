"""The score behind telemetry_anomaly: one baseline per plugin, for figures that no threshold knows.

Rule: a plugin is unlike itself when a figure stays clearly above what is usual for it, beyond what befalls its peers
(plugins of the same release) at the same moment: what befalls everybody excuses, it never accuses. Each window adds
evidence for "it has shifted" against "it is as usual" to a score, in nats, never below zero; at 20 the anomaly opens,
and it closes when every score is down to 8. No single window may add more than 5, and none more than its share of
thirty seconds, so a burst, a restart or a storm of beats is no shift. What is suspicious is not learned.

The score is Page's cumulative sum of log-likelihood ratios (E. S. Page, Continuous inspection schemes, Biometrika 41,
1954): by Wald's bound a healthy plugin waits e^20 windows on average. Counts (errors, failed webhooks) are taken as
Poisson against twice or thrice the usual rate (J. M. Lucas, Counted data CUSUM's, Technometrics 27, 1985), divided by
their dispersion where they come in clusters (R. W. M. Wedderburn, Quasi-likelihood functions, Biometrika 61, 1974);
levels (latencies, memory) as normal in their logarithm against a shift of three standard deviations. What is common to
peers is a median, its spread the median absolute deviation (F. R. Hampel, JASA 69, 1974).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from enum import Enum
from statistics import median
from typing import NamedTuple

from services.ingest.windows import Window

ERROR_RATE = "error_rate"
FAIL_RATE = "webhook_fail_rate"
# Named numbers that are levels of which more is worse.
LEVELS = ("_ms", "_seconds", "_bytes")
MOST_LEVELS = 4
LONGEST_NAME = 64


class Rules(NamedTuple):
    """What the score goes by; scores in nats, times in seconds."""

    open: float = 20.0
    close: float = 8.0
    ceiling: float = 22.0
    cap: float = 5.0
    full: float = 30.0
    warm: float = 3600.0
    memory: float = 86_400.0
    peers: int = 8
    # Times the usual rate that the score looks for: with peers to excuse what is common, and without.
    ratio: float = 2.0
    ratio_alone: float = 3.0
    shift: float = 3.0
    # Of a level's logarithm; less is never believed, since days and weeks move it more slowly than it is learned.
    least_spread: float = 0.3
    least_spread_alone: float = 0.4


class Reading(NamedTuple):
    """One figure of one window. A count has its `exposure` (how often it could have happened), a level has none."""

    value: float
    exposure: float = 0.0


class Figure(NamedTuple):
    """What is usual for one plugin: five floats.

    For counts `amount / base` is events per exposure and `spread` their dispersion; for levels it is the mean logarithm
    and its variance. `seconds` says how long it was measured, up to what is remembered.
    """

    amount: float = 0.0
    base: float = 0.0
    spread: float = 0.0
    score: float = 0.0
    seconds: float = 0.0


class Reference(NamedTuple):
    """What peers show: by which factor they are above their usual now, and centre and spread of what is usual."""

    peers: int = 0
    factor: float = 1.0
    centre: float = 0.0
    spread: float = 0.0


class Baseline(NamedTuple):
    """The state of one plugin, small enough for its row."""

    open: bool = False
    figures: dict[str, Figure] = {}  # noqa: RUF012 - never changed in place


class Change(Enum):
    """What a window means for the anomaly."""

    OPEN = "open"
    NONE = "none"
    CLOSE = "close"


class Evaluation(NamedTuple):
    """The baseline after a window, what changed, and on OPEN the figure behind it with its usual and present value."""

    baseline: Baseline
    change: Change
    figure: str = ""
    usual: float = 0.0
    present: float = 0.0
    reason: str = ""


RULES = Rules()
ALONE = Reference()
NEW = Figure()


def readings(window: Window, numbers: Iterable[tuple[str, float]] = ()) -> dict[str, Reading]:
    """The figures of a window and of the named numbers that came with its beat.

    Errors are counted per webhook attempt, where a minute counts like one, so that busy hours are no anomaly.
    """
    found = {ERROR_RATE: Reading(window.errors, window.attempts + window.duration / 60.0)}
    if window.attempts:
        found[FAIL_RATE] = Reading(window.failures, window.attempts)
    levels = [(name, value) for name, value in numbers if name.endswith(LEVELS) and 0.0 < value < math.inf]
    for name, value in sorted(levels)[:MOST_LEVELS]:
        if len(name.encode()) <= LONGEST_NAME:
            found[name] = Reading(math.log(value))
    return found


def evaluate(
    baseline: Baseline,
    readings: Mapping[str, Reading],
    seconds: float,
    references: Mapping[str, Reference],
    rules: Rules = RULES,
) -> Evaluation:
    """The baseline after a window of so many seconds. `references` are those of the plugin's release, by figure."""
    if seconds <= 0.0:
        # The first beat of a boot: nobody knows since when its counters run.
        return Evaluation(baseline, Change.NONE)
    figures = dict(baseline.figures)
    for name, reading in readings.items():
        known = figures.get(name, NEW)
        reference = references.get(name, ALONE)
        if reading.exposure:
            figures[name] = _count(known, reading, seconds, reference, rules)
        else:
            figures[name] = _level(known, reading.value, seconds, reference, rules)
    worst = max(figures, key=lambda name: figures[name].score, default="")
    score = figures[worst].score if worst else 0.0
    if not baseline.open and score >= rules.open and worst in readings:
        return _opened(
            figures, worst, readings[worst], baseline.figures.get(worst, NEW), references.get(worst, ALONE), rules
        )
    if baseline.open and score <= rules.close:
        return Evaluation(Baseline(False, figures), Change.CLOSE)
    return Evaluation(Baseline(baseline.open, figures), Change.NONE)


class Usual(NamedTuple):
    """What is usual of a level, and the standard deviation of its natural logarithm."""

    value: float
    spread: float


def usual_levels(baseline: Baseline, seconds: float, rules: Rules = RULES) -> dict[str, Usual]:
    """What is usual of each level that was measured for so long."""
    return {
        name: Usual(
            math.exp(figure.amount / figure.base), max(rules.least_spread_alone, math.sqrt(max(0.0, figure.spread)))
        )
        for name, figure in baseline.figures.items()
        if name.endswith(LEVELS) and figure.base > 0.0 and figure.seconds >= seconds
    }


def reset_scores(baseline: Baseline) -> Baseline:
    """After an apply or an incident's end: evidence from before no longer counts, what is usual stays."""
    return Baseline(False, {name: figure._replace(score=0.0) for name, figure in baseline.figures.items()})


def accept(baseline: Baseline, rules: Rules = RULES) -> Baseline:
    """A person says that this is the new usual: what has raised a score is learned anew."""
    fresh = {name: figure for name, figure in baseline.figures.items() if figure.score < rules.open / 2}
    return reset_scores(Baseline(False, fresh))


def reference(peers: Iterable[tuple[Figure, Reading]], rules: Rules = RULES) -> Reference:
    """What peers show of one figure: each with what is usual for it and its newest reading.

    For counts the reading may well be the sum of the last few windows: what is common is then known better.
    """
    known = [(figure, reading) for figure, reading in peers if figure.seconds >= rules.warm and figure.base > 0.0]
    if len(known) < rules.peers:
        return ALONE
    usual = [figure.amount / figure.base for figure, _ in known]
    centre = median(usual)
    spread = 1.4826 * median([abs(value - centre) for value in usual])
    if known[0][1].exposure:
        expected = [(reading.value, figure.amount / figure.base * reading.exposure) for figure, reading in known]
        # A few peers with much trouble are not everybody; a few events are not a trend.
        happened = sum(min(value, 4.0 * mean + 3.0) for value, mean in expected)
        factor = (happened + 20.0) / (sum(mean for _, mean in expected) + 20.0)
    else:
        above = [reading.value - mean for mean, (_, reading) in zip(usual, known, strict=True)]
        factor = math.exp(min(3.0, median(above)))
    return Reference(len(known), min(8.0, max(1.0, factor)), centre, spread)


def pack(baseline: Baseline) -> bytes:
    """The bytes of a baseline for the plugin's row."""
    parts = [b"\1" if baseline.open else b"\0"]
    for name, figure in baseline.figures.items():
        encoded = name.encode()
        parts += [bytes([len(encoded)]), encoded, LAYOUT.pack(*figure)]
    return b"".join(parts)


def unpack(packed: bytes) -> Baseline:
    """A baseline from its bytes; none yet when there are none."""
    figures: dict[str, Figure] = {}
    place = 1
    while place < len(packed):
        end = place + 1 + packed[place]
        figures[packed[place + 1 : end].decode()] = Figure._make(LAYOUT.unpack_from(packed, end))
        place = end + LAYOUT.size
    return Baseline(packed[:1] == b"\1", figures)


LAYOUT = struct.Struct("<5f")


def _count(known: Figure, reading: Reading, seconds: float, peers: Reference, rules: Rules) -> Figure:
    value, exposure = reading
    warm = known.seconds >= rules.warm
    if warm:
        # Three events more than were seen: a rate that is hardly known is not called low.
        rate = (known.amount + 3.0) / known.base
    elif peers.peers:
        rate = peers.centre + 3.0 * peers.spread + 3.0 / (exposure * rules.warm / seconds)
    else:
        return _learn(known, value, exposure, 1.0, seconds, rules, 0.0)
    expected = rate * exposure * peers.factor
    ratio = rules.ratio if peers.peers else rules.ratio_alone
    evidence = (value * math.log(ratio) - (ratio - 1.0) * expected) / max(1.0, known.spread)
    surprise = min(25.0, (value - expected) ** 2 / max(expected, 0.1))
    return _learn(known, value, exposure, surprise, seconds, rules, evidence)


def _level(known: Figure, value: float, seconds: float, peers: Reference, rules: Rules) -> Figure:
    least = rules.least_spread if peers.peers else rules.least_spread_alone
    common = math.log(peers.factor)
    if known.seconds >= rules.warm:
        usual, sigma = known.amount / known.base, max(least, math.sqrt(known.spread))
    elif peers.peers:
        # Plugins differ; a new one is strange only when it is far from what they are among themselves.
        usual, sigma = peers.centre, 3.0 * max(least, peers.spread)
    else:
        usual = known.amount / known.base if known.base else value
        return _learn(known, value * seconds, seconds, (value - usual) ** 2, seconds, rules, 0.0)
    above = value - common - usual
    away = max(-3.0, min(3.0, above / sigma))
    evidence = min(1.0, seconds / rules.full) * (rules.shift * above / sigma - rules.shift**2 / 2.0)
    if known.seconds < rules.warm:
        own = known.amount / known.base if known.base else value
        return _learn(known, value * seconds, seconds, (value - own) ** 2, seconds, rules, evidence)
    # An outlier moves what is usual no further than three standard deviations would.
    learned = usual + common + away * sigma
    return _learn(known, learned * seconds, seconds, (away * sigma) ** 2, seconds, rules, evidence)


def _learn(
    known: Figure, amount: float, base: float, surprise: float, seconds: float, rules: Rules, evidence: float
) -> Figure:
    cap = rules.cap * min(1.0, seconds / rules.full)
    score = min(rules.ceiling, max(0.0, known.score + max(-rules.cap, min(cap, evidence))))
    if score >= rules.open / 2.0:
        return known._replace(score=score)
    decay = math.exp(-seconds / rules.memory)
    measured = known.seconds * decay + seconds
    spread = known.spread + (surprise - known.spread) * seconds / measured
    return Figure(known.amount * decay + amount, known.base * decay + base, spread, score, measured)


def _opened(
    figures: dict[str, Figure], name: str, reading: Reading, before: Figure, peers: Reference, rules: Rules
) -> Evaluation:
    own = before.seconds >= rules.warm
    usual = before.amount / before.base if own else peers.centre
    present = reading.value / reading.exposure if reading.exposure else math.exp(reading.value)
    usual = usual if reading.exposure else math.exp(usual)
    whose = "this plugin" if own else "plugins of its release"
    beside = ", and its peers are as usual" if peers.peers else ""
    reason = f"{name} stays above what is usual for {whose}: {present:.3g} now, {usual:.3g} before{beside}"
    return Evaluation(Baseline(True, figures), Change.OPEN, name, usual, present, reason)
