"""Every SQL statement of queue."""

from __future__ import annotations

from libs.common.database import Transaction

COUNT = "SELECT state, count(*) AS tasks FROM queue.tasks GROUP BY state"


async def tasks_by_state(tx: Transaction) -> dict[str, int]:
    """How many tasks are in each state that has any."""
    return {row.state: row.tasks for row in await tx.all(COUNT)}
