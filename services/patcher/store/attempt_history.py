"""Rows of the history of attempts; only ever added."""

from datetime import datetime

from libs.common.database import Transaction
from services.patcher.attempt import Change, State, Transition

APPEND = """
INSERT INTO patcher.attempt_history (attempt, merchant, number, create_time, from_state, to_state, observation, reason)
VALUES (:attempt, :merchant,
        (SELECT coalesce(max(number), 0) + 1 FROM patcher.attempt_history WHERE attempt = :attempt),
        :create_time, :from_state, :to_state, :observation, :reason)
"""
HISTORY = """
SELECT create_time, from_state, to_state, observation, reason FROM patcher.attempt_history WHERE attempt = :attempt
ORDER BY number LIMIT 1000
"""


async def append(tx: Transaction, change: Change) -> None:
    """Adds what an attempt went through."""
    about = {"attempt": change.attempt.id, "merchant": change.attempt.merchant, "create_time": tx.now}
    for each in change.transitions:
        await tx.run(APPEND, **about, **vars(each) | {"reason": each.reason[:2000]})


async def read(tx: Transaction, attempt: str) -> list[tuple[datetime, Transition]]:
    """The history of an attempt, oldest first."""
    rows = await tx.all(HISTORY, attempt=attempt)
    return [(r.create_time, Transition(State(r.from_state), State(r.to_state), r.observation, r.reason)) for r in rows]
