"""Pace: how many plugins may be in flight at once.

Rule: a rollout begins with one plugin at a time and doubles after each clean batch, up to its budget, so that a build
which breaks much is met by few. A batch is as many results as were allowed in flight; it is clean when it broke no
more than the allowed noise explains (none of less than 50 at 2 %). A batch that broke more halves the width, and
while the wave is in doubt it goes on one by one, because the next results decide (slow start and multiplicative
decrease: Jacobson 1988, Chiu & Jain 1989).
"""

import math
from dataclasses import dataclass

from libs.common.errors import Invalid


@dataclass(frozen=True)
class Concurrency:
    """The width in force, and what came of the batch it is counting."""

    width: int = 1
    settled: int = 0
    broken: int = 0


def after(concurrency: Concurrency, *, counted_against: bool, doubtful: bool, budget: int, floor: float) -> Concurrency:
    """The pace after one more result; `floor` is the noise allowed, 0 to 1."""
    settled, broken = concurrency.settled + 1, concurrency.broken + counted_against
    if doubtful:
        return Concurrency()
    if broken > math.floor(floor * concurrency.width + 1e-9):
        return Concurrency(max(1, concurrency.width // 2))
    if settled >= concurrency.width:
        return Concurrency(max(1, min(budget, concurrency.width * 2)))
    return Concurrency(concurrency.width, settled, broken)


def headroom(concurrency: Concurrency, budget: int, in_flight: int) -> int:
    """How many more plugins may be started now."""
    return max(0, min(concurrency.width, budget) - in_flight)


def in_flight_limit(absolute: int, percent: float, fleet: int) -> int:
    """The in-flight budget of a fleet: the smaller of a number and a share (percent, rounded up), but at least one."""
    if absolute < 1:
        raise Invalid(
            f"budget must be at least 1 plugin, it was {absolute}; pause the rollout to stop it",
            reason="ROLLOUT_BUDGET",
            field="budget",
            budget=str(absolute),
        )
    if not 0.0 < percent <= 100.0:
        raise Invalid(
            f"budget_percent must be above 0 and at most 100, it was {percent:g}",
            reason="ROLLOUT_BUDGET",
            field="budget_percent",
            budget_percent=f"{percent:g}",
        )
    # Guard against 0.1 + 0.2: a share that is whole but for rounding is whole.
    return max(1, min(absolute, math.ceil(percent * fleet / 100.0 - 1e-9)))
