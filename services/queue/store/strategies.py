"""Rows of strategies' status ⇄ dataclasses. What a strategy does is data of the file; only its status is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.queue.strategies import StrategyStatus

COLUMNS = "name, state, successes, failures, approved, approved_by, reason, update_time"
ALL = f"SELECT {COLUMNS} FROM queue.strategies"
LOCK = f"{ALL} WHERE name = ANY(CAST(:names AS text[])) ORDER BY name FOR UPDATE"
SEED = """
INSERT INTO queue.strategies (name, state, update_time)
SELECT name, 'candidate', :now FROM unnest(CAST(:names AS text[])) AS g (name) ORDER BY name
ON CONFLICT (name) DO NOTHING
"""
SAVE = """
UPDATE queue.strategies SET state = :state, successes = :successes, failures = :failures, approved = :approved,
    approved_by = :approved_by, reason = :reason, update_time = :now
WHERE name = :name
"""
# Numbered under the lock of the strategy's row, as entries of a report are.
ADD_HISTORY = """
WITH numbered AS (
    UPDATE queue.strategies SET history_count = history_count + 1 WHERE name = :strategy
    RETURNING name, history_count)
INSERT INTO queue.strategy_history (id, strategy, number, from_state, to_state, reason, actor, confidence, create_time)
SELECT queue.uuid_v7(:now), name, history_count, :from_state, :to_state, :reason, :actor, :confidence, :now
FROM numbered
"""
HISTORY = """
SELECT from_state, to_state, reason, actor, confidence, create_time FROM queue.strategy_history
WHERE strategy = :strategy ORDER BY number DESC LIMIT 100
"""


@dataclass(frozen=True)
class StoredStatus:
    """The status of a strategy with who set it, why and when."""

    name: str
    status: StrategyStatus
    approved_by: str
    reason: str
    updated: datetime


async def all_statuses(tx: Transaction) -> dict[str, StoredStatus]:
    """Every status, by name."""
    return {row.name: _stored(row) for row in await tx.all(ALL)}


async def lock(tx: Transaction, names: Sequence[str]) -> dict[str, StoredStatus]:
    """Some statuses, locked until the commit."""
    return {row.name: _stored(row) for row in await tx.all(LOCK, names=list(names))}


async def seed(tx: Transaction, names: Sequence[str]) -> None:
    """Gives every strategy that has none a status."""
    await tx.run(SEED, names=list(names), now=tx.now)


async def save(tx: Transaction, stored: StoredStatus) -> None:
    """Writes a status."""
    status = stored.status
    await tx.run(
        SAVE,
        name=stored.name,
        state=status.state,
        successes=status.successes,
        failures=status.failures,
        approved=status.approved,
        approved_by=stored.approved_by,
        reason=stored.reason,
        now=tx.now,
    )


async def add_history(
    tx: Transaction, strategy: str, *, before: str, after: str, reason: str, actor: str, confidence: float
) -> None:
    """Adds a change to the history of a strategy."""
    values = {"from_state": before, "to_state": after, "reason": reason, "actor": actor, "confidence": confidence}
    await tx.run(ADD_HISTORY, strategy=strategy, now=tx.now, **values)


async def history(tx: Transaction, strategy: str) -> list[Any]:
    """The last hundred changes of a strategy, in order."""
    return list(reversed(await tx.all(HISTORY, strategy=strategy)))


def _stored(row: Any) -> StoredStatus:
    status = StrategyStatus(row.successes, row.failures, row.state, row.approved)
    return StoredStatus(row.name, status, row.approved_by, row.reason, row.update_time)
