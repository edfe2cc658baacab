"""Tasks and their leases: who is next, who holds one, and what the end of a try does.

Rule: priority is the severity's base plus what the triage was sure of, 1 to 10. A task's rank is its creation minus ten
minutes for each step of priority, and the lowest rank is next: a task of one step less wins once it has waited ten
minutes longer, so nothing starves and no sweep has to age anything. A worker holds a task by a lease whose token rises
with every lease; what comes under another token is refused. After a try that failed a task waits 30 s, then 2 min, then
5 min (each ±20 %) for another, and after the fourth it has failed; so it has after three lost leases, counted apart
because a crash proves nothing about the strategy. Neither does a try that found no tool or was not allowed to use it.
Taking a task back or out raises its token, so that whoever still works on it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

STATES = ("pending", "processing", "retrying", "completed", "failed", "cancelled")
ACTIVE = ("pending", "processing", "retrying")
ENDED = ("completed", "failed", "cancelled")

LOWEST, HIGHEST = 1, 10
BASE = {"critical": 8, "high": 6, "medium": 4, "low": 2}
CONFIDENCE_BONUS = ((0.9, 2, True), (0.8, 1, False))
STEP_SECONDS = 600.0

SHORTEST_LEASE, LEASE, LONGEST_LEASE = 5.0, 30.0, 600.0
RETRY_SECONDS = (30.0, 120.0, 300.0)
JITTER = 0.2
MAX_CRASHES = 3
# The end of a task that nobody came for.
NO_WORKER = "NO_WORKER"
# Ends of a try that say nothing about the strategy.
NOT_APPROVED = "WRITE_NOT_APPROVED"
INCONCLUSIVE = (NOT_APPROVED, "TOOL_UNKNOWN", "TOOL_UNAVAILABLE")

# state → (who acts on it, by when, what comes next)
OWNERS = {
    "pending": (
        "workers: ClaimTasks; sweep strand when none has its tools",
        "an hour without one",
        "processing, failed",
    ),
    "processing": ("sweep reap", "lease_expire_time", "pending, or failed after three lost leases"),
    "retrying": ("sweep due", "run_time", "pending"),
    "completed": ("CleanUpTasks", "by age, when a person asks", "deleted"),
    "failed": ("a person: RetryTask", "its report is escalated", "pending"),
    "cancelled": ("a person: RetryTask", "its report is escalated or closed", "pending"),
}


@dataclass(frozen=True)
class Transition:
    """What the end of a try makes of its task. `run_time` is set for retrying alone."""

    state: str
    attempts: int
    run_time: datetime | None
    outcome: str


def priority(severity: str, confidence: float) -> int:
    """Priority of a report's task, 1 to 10; an unknown severity counts as low."""
    bonus = next(
        (more for least, more, whole in CONFIDENCE_BONUS if confidence > least or (whole and confidence == least)), 0
    )
    return max(LOWEST, min(HIGHEST, BASE.get(severity, BASE["low"]) + bonus))


def rank(created: datetime, of_priority: int) -> datetime:
    """The moment by which tasks are ordered; the earliest is next."""
    return created - timedelta(seconds=STEP_SECONDS * of_priority)


def max_attempts(delays: Sequence[float]) -> int:
    """How many tries a task has: the first, and one after each of the delays."""
    return 1 + len(delays)


def retry_delay(attempts: int, delays: Sequence[float], chance: float) -> float:
    """Seconds until the next try after `attempts` failed ones; `chance` (0 to 1) spreads them by ±20 %."""
    planned = delays[min(max(attempts, 1), len(delays)) - 1]
    return planned * (1 + JITTER * (2 * chance - 1))


def after_failure(
    attempts: int,
    max_attempts: int,
    now: datetime,
    *,
    failure: str,
    permanent: bool,
    delays: Sequence[float],
    chance: float,
) -> Transition:
    """What one more failed try makes of a task that had `attempts` before."""
    tries = min(attempts + 1, max_attempts)
    outcome = failure or "FAILED"
    if permanent or tries >= max_attempts:
        return Transition("failed", tries, None, outcome)
    return Transition("retrying", tries, now + timedelta(seconds=retry_delay(tries, delays, chance)), outcome)


def is_repeat(state: str, success: bool) -> bool:
    """Whether a completion under the task's last token repeats what is recorded already, and so is harmless."""
    return state == "completed" if success else state in ("retrying", "failed")
