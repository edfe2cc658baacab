"""Rollouts of good and bad builds, simulated: how many plugins break before the halt, and how often a good one halts.

The same plugins meet three rules at three in-flight budgets: ours (the hearts of `services.patcher.rollout`, ramp and
all), "errors ÷ group size > 5 %" (hawkBit) and "running percentage ≥ 10 after 10 results". The two others keep their
whole budget in flight, as they do. Each plugin breaks by itself with the stated probability; a broken one shows it
within one probation or, one in five, falls silent and is counted when its deadline has passed. *Broken* counts those
in flight that break after the halt as well: they were switched already. Time is in probations.
"""

from __future__ import annotations

import asyncio
import bisect
import heapq
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.patcher.rollout.concurrency import Concurrency, after, headroom
from services.patcher.rollout.judging import Counts, Exposure, Rules, doubt, judge
from services.patcher.verdict import Result

ROLLOUTS = 1_000
WAVE = 1_000
NOISE = 0.02
BUILDS = {"good_2": 0.02, "bad_5": 0.05, "bad_10": 0.10, "bad_20": 0.20, "bad_50": 0.50}
BUDGETS = (1, 16, 200)
TARGET_BROKEN, TARGET_FALSE_HALTS = 5, 1.0
RULES = Rules()

Plugin = tuple[bool, float]  # whether it breaks, and after how many probations it has a result


@dataclass(frozen=True)
class End:
    """How a wave ended. `known` had broken when it was stopped, `broken` in the end; `time` is in probations.

    `paused` when it was stopped for a person because the surroundings break as well.
    """

    halted: bool
    known: int
    broken: int
    switched: int
    time: float
    paused: bool = False


def plugins(seed: str, share: float, size: int = WAVE) -> list[Plugin]:
    """A wave of plugins of which this share breaks; the same for every rule and budget."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    made = []
    for _ in range(size):
        breaks, span, silent = chance.random() < share, chance.random(), chance.random() < 0.2
        after_probations = (1.5 if silent else 0.2 + 0.8 * span) if breaks else 0.8 + 0.4 * span
        made.append((breaks, after_probations))
    return made


class ControlGroup:
    """Plugins that are not switched: so many are watched for a probation at a time, and this share of them breaks."""

    def __init__(self, seed: str, size: int, share: float) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self._size, self._share, self._probations = size, share, 0
        self.counts = Counts()

    def until(self, time: float) -> Counts:
        """What they have shown by now."""
        while self._probations + 1 <= time:
            self._probations += 1
            broken = sum(self._chance.random() < self._share for _ in range(self._size))
            self.counts = Counts(self.counts.exposed + self._size, self.counts.broken + broken)
        return self.counts


def ours(wave: Sequence[Plugin], budget: int, control: ControlGroup | None = None) -> End:
    """The wave under our rule: ramp, e-process, control group."""
    concurrency, flight, broken, switched, time = Concurrency(), list[tuple[float, int]](), list[int](), 0, 0.0
    while switched < len(wave) or flight:
        for _ in range(min(headroom(concurrency, budget, len(flight)), len(wave) - switched)):
            switched += 1
            heapq.heappush(flight, (time + wave[switched - 1][1], switched))
        time, switch_number = heapq.heappop(flight)
        counted_against = wave[switch_number - 1][0]
        if counted_against:
            bisect.insort(broken, switch_number)
            seen = control.until(time) if control else Counts()
            said = judge([Exposure(switched, tuple(broken))], 1, seen, RULES)
            failed = said.result is Result.FAIL
            if failed or said.common_cause:
                in_all = sum(breaks for breaks, _ in wave[:switched])
                return End(failed, len(broken), in_all, switched, time, paused=not failed)
        doubtful = doubt(Counts(switched, len(broken)), RULES) >= RULES.doubt
        concurrency = after(
            concurrency, counted_against=counted_against, doubtful=doubtful, budget=budget, floor=RULES.floor
        )
    return End(False, len(broken), len(broken), switched, time)


Halt = Callable[[int, int, int], bool]  # broken so far, results so far, size of the wave


def hawkbit(broken: int, results: int, size: int) -> bool:
    """Errors ÷ group size > 5 %."""
    return broken > 0.05 * size


def running(broken: int, results: int, size: int) -> bool:
    """Running percentage ≥ 10 after 10 results."""
    return results >= 10 and broken >= 0.1 * results


def fixed(wave: Sequence[Plugin], budget: int, halts: Sequence[Halt]) -> list[End]:
    """The wave under rules that keep the budget full; one end for each."""
    slots = [0.0] * budget
    starts, results = [], []
    for number, (breaks, span) in enumerate(wave):
        start = slots[0]
        heapq.heapreplace(slots, start + span)
        starts.append(start)
        results.append((start + span, number, breaks))
    results.sort()
    return [_first(halt, wave, starts, results) for halt in halts]


def _first(halt: Halt, wave: Sequence[Plugin], starts: list[float], results: list[tuple[float, int, bool]]) -> End:
    broken = 0
    for seen, (time, _, breaks) in enumerate(results, 1):
        broken += breaks
        if halt(broken, seen, len(wave)):
            # The slot of this very result is not filled again.
            switched = bisect.bisect_left(starts, time)
            return End(True, broken, sum(breaks for breaks, _ in wave[:switched]), switched, time)
    return End(False, broken, broken, len(wave), results[-1][0])


def summary(ends: Sequence[End]) -> dict[str, float]:
    """The figures of many rollouts of one build."""
    broken, known = sorted(end.broken for end in ends), sorted(end.known for end in ends)
    tail = max(0, -(-95 * len(ends) // 100) - 1)
    return {
        "halted_percent": round(100.0 * sum(end.halted for end in ends) / len(ends), 2),
        "paused_percent": round(100.0 * sum(end.paused for end in ends) / len(ends), 2),
        "broken_median": statistics.median(broken), "broken_p95": broken[tail],
        "known_at_halt_median": statistics.median(known), "known_at_halt_p95": known[tail],
        "switched_median": statistics.median(end.switched for end in ends),
        "probations_median": round(statistics.median(end.time for end in ends), 1),
    }  # fmt: skip


def compare(rollouts: int = ROLLOUTS, budgets: Sequence[int] = BUDGETS) -> dict[str, Any]:
    """Every build under every rule and budget."""
    table: dict[str, Any] = {}
    for build, share in BUILDS.items():
        ends: dict[tuple[str, int], list[End]] = {}
        for number in range(rollouts):
            wave = plugins(f"{build}/{number}", share)
            for budget in budgets:
                hawk, run = fixed(wave, budget, (hawkbit, running))
                for rule, end in (("prunella", ours(wave, budget)), ("hawkbit", hawk), ("running_percent", run)):
                    ends.setdefault((rule, budget), []).append(end)
        for (rule, budget), found in ends.items():
            table.setdefault(build, {}).setdefault(rule, {})[f"budget_{budget}"] = summary(found)
    return table


def beside_a_control_group(rollouts: int, budget: int = 16, size: int = 100) -> dict[str, Any]:
    """Our rule when the surroundings are seen as well: noise of 2 %, and trouble that hits everybody alike."""
    found: dict[str, Any] = {}
    cases = {build: (share, NOISE) for build, share in BUILDS.items()}
    cases |= {f"everybody_{round(100 * share)}": (share, share) for share in (0.05, 0.1, 0.2, 0.5)}
    for name, (share, noise) in cases.items():
        ends = []
        for number in range(rollouts):
            group = ControlGroup(f"control/{name}/{number}", size, noise)
            ends.append(ours(plugins(f"{name}/{number}", share), budget, group))
        found[name] = summary(ends)
    return found


def _measure(rollouts: int) -> dict[str, Any]:
    table = compare(rollouts)
    bad, good = table["bad_20"]["prunella"], table["good_2"]["prunella"]
    median = max(found["broken_median"] for found in bad.values())
    false_halts = max(found["halted_percent"] for found in good.values())
    return {
        "rollouts": rollouts, "wave": WAVE,
        "bad_20_broken_median_worst_budget": median, "target_broken": TARGET_BROKEN,
        "false_halts_percent_worst_budget": false_halts, "target_false_halts_percent": TARGET_FALSE_HALTS,
        "reached": median <= TARGET_BROKEN and false_halts <= TARGET_FALSE_HALTS,
        "rules": table,
        "control_group_of_100": beside_a_control_group(max(1, rollouts // 4)),
    }  # fmt: skip


async def measure(rollouts: int = ROLLOUTS) -> dict[str, Any]:
    """All of it, on one core."""
    return await asyncio.to_thread(_measure, rollouts)
