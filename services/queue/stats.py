"""How much work there is, and how it went.

Rule: every state a task or report can have is always there, with 0 when nothing is in it, so that a reader never has to
guess whether a state is empty or unknown. A figure without data is absent, never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.queue.leases import ENDED
from services.queue.leases import STATES as TASK_STATES
from services.queue.recurrence import STATES as REPORT_STATES


@dataclass(frozen=True)
class StateCount:
    """How many things of a kind are in a state, the sum of their priorities, and of their seconds until completion."""

    kind: str
    state: str
    count: int
    priority_sum: int
    seconds_sum: float


@dataclass(frozen=True)
class QueueStats:
    """The queue in figures. Rates are percent, times are minutes; None without data."""

    tasks: Mapping[str, int]
    reports: Mapping[str, int]
    total: int
    success_rate_percent: float | None
    mean_completion_minutes: float | None


def queue_stats(counts: Iterable[StateCount]) -> QueueStats:
    """What the counts amount to."""
    found = {(count.kind, count.state): count for count in counts}
    tasks = {state: _count(found.get(("task", state))) for state in TASK_STATES}
    ended = sum(tasks[state] for state in ENDED)
    completed = found.get(("task", "completed"))
    done = completed if completed and completed.count > 0 else None
    return QueueStats(
        tasks=tasks,
        reports={state: _count(found.get(("report", state))) for state in REPORT_STATES},
        total=sum(tasks.values()),
        success_rate_percent=100 * tasks["completed"] / ended if ended else None,
        mean_completion_minutes=done.seconds_sum / done.count / 60 if done else None,
    )


def _count(count: StateCount | None) -> int:
    # Between a delta and the fold of its counterpart nothing is ever negative, but a reader should not depend on it.
    return max(0, count.count) if count else 0
