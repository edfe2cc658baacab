"""How many tasks and reports are in each state: deltas beside every change, folded by a sweep, so no row is hot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.queue.stats import StateCount

ADD = """
INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
SELECT :kind, state, count, priority_sum, 0
FROM unnest(CAST(:states AS text[]), CAST(:counts AS bigint[]), CAST(:priority_sums AS bigint[]))
    AS g (state, count, priority_sum)
"""
FOLD = """
WITH taken AS (DELETE FROM queue.state_count_deltas RETURNING kind, state, count, priority_sum, seconds_sum)
INSERT INTO queue.state_counts AS c (kind, state, count, priority_sum, seconds_sum)
SELECT kind, state, sum(count), sum(priority_sum), sum(seconds_sum) FROM taken
GROUP BY kind, state ORDER BY kind, state
ON CONFLICT (kind, state) DO UPDATE SET count = c.count + EXCLUDED.count,
    priority_sum = c.priority_sum + EXCLUDED.priority_sum, seconds_sum = c.seconds_sum + EXCLUDED.seconds_sum
"""
TOTALS = "SELECT kind, state, count, priority_sum, seconds_sum FROM queue.state_totals"
TASK_STATES = "SELECT state, count, mean_priority, oldest_create_time, newest_create_time FROM queue.task_states"


async def add_transitions(tx: Transaction, kind: str, transitions: Iterable[tuple[str, str, int]]) -> None:
    """Counts things that went from state to state, each with a priority; an empty state is outside the table."""
    changes: dict[str, tuple[int, int]] = {}
    for before, after, priority in transitions:
        for state, sign in ((before, -1), (after, 1)):
            if state and before != after:
                count, priority_sum = changes.get(state, (0, 0))
                changes[state] = (count + sign, priority_sum + sign * priority)
    states = [state for state, change in changes.items() if change != (0, 0)]
    if states:
        counts, priority_sums = zip(*(changes[state] for state in states), strict=True)
        await tx.run(ADD, kind=kind, states=states, counts=list(counts), priority_sums=list(priority_sums))


async def fold(tx: Transaction) -> int:
    """Folds the deltas that are there; how many sums were touched."""
    return await tx.run(FOLD)


async def totals(tx: Transaction) -> list[StateCount]:
    """What the counts and the deltas not folded yet amount to."""
    return [
        StateCount(row.kind, row.state, int(row.count), int(row.priority_sum), float(row.seconds_sum))
        for row in await tx.all(TOTALS)
    ]


async def task_states(tx: Transaction) -> Sequence[Any]:
    """The view queue.task_states."""
    return await tx.all(TASK_STATES)


def oldest_waiting(task_state_rows: Sequence[Any]) -> datetime | None:
    """Creation of the oldest task that waits and is due."""
    return next((row.oldest_create_time for row in task_state_rows if row.state == "pending"), None)
