"""How many tasks and reports are in each state: deltas beside every change, folded by a sweep, so no row is hot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.queue.stats import StateCount

MOVE = """
INSERT INTO queue.count_deltas (kind, state, number, priorities, seconds)
SELECT :kind, state, number, priorities, 0
FROM unnest(CAST(:states AS text[]), CAST(:numbers AS bigint[]), CAST(:priorities AS bigint[]))
    AS g (state, number, priorities)
"""
FOLD = """
WITH taken AS (DELETE FROM queue.count_deltas RETURNING kind, state, number, priorities, seconds)
INSERT INTO queue.counts AS c (kind, state, number, priorities, seconds)
SELECT kind, state, sum(number), sum(priorities), sum(seconds) FROM taken GROUP BY kind, state ORDER BY kind, state
ON CONFLICT (kind, state) DO UPDATE SET number = c.number + EXCLUDED.number,
    priorities = c.priorities + EXCLUDED.priorities, seconds = c.seconds + EXCLUDED.seconds
"""
TOTALS = "SELECT kind, state, number, priorities, seconds FROM queue.figures"
STATUS = "SELECT state, count, mean_priority, oldest_task, newest_task FROM queue.task_status"


async def move(tx: Transaction, kind: str, changes: Mapping[str, tuple[int, int]]) -> None:
    """Counts so many more (or fewer) things in each state, with the sum of their priorities."""
    states = [state for state, change in changes.items() if change != (0, 0)]
    if states:
        await tx.run(
            MOVE,
            kind=kind,
            states=states,
            numbers=[changes[state][0] for state in states],
            priorities=[changes[state][1] for state in states],
        )


async def moved(tx: Transaction, kind: str, moves: Iterable[tuple[str, str, int]]) -> None:
    """Counts moves from state to state, each with a priority; an empty state is outside the table."""
    changes: dict[str, tuple[int, int]] = {}
    for before, after, priority in moves:
        for state, sign in ((before, -1), (after, 1)):
            if state and before != after:
                number, priorities = changes.get(state, (0, 0))
                changes[state] = (number + sign, priorities + sign * priority)
    await move(tx, kind, changes)


async def fold(tx: Transaction) -> int:
    """Folds the deltas that are there; how many sums were touched."""
    return await tx.run(FOLD)


async def totals(tx: Transaction) -> list[StateCount]:
    """What the counts and the deltas not folded yet amount to."""
    return [
        StateCount(row.kind, row.state, int(row.number), int(row.priorities), float(row.seconds))
        for row in await tx.all(TOTALS)
    ]


async def status(tx: Transaction) -> Sequence[Any]:
    """The view queue.task_status."""
    return await tx.all(STATUS)


def oldest_waiting(status_rows: Sequence[Any]) -> datetime | None:
    """Creation of the oldest task that waits and is due."""
    return next((row.oldest_task for row in status_rows if row.state == "pending"), None)
