"""Failed deliveries and dead letters: facts that a consumer could not handle, and the way back.

Rule: errors (the reaction raised) and crashes (it began and never ended) are counted apart, since a fact that kills
its consumer must become a dead letter sooner. A dead letter is visible, keeps its reason, and is handled again after a
redrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import NotFound

MAX_ERRORS = 8
MAX_CRASHES = 3

COUNT_ATTEMPT = """
INSERT INTO bus.delivery_failures (consumer, event_id, attempts) VALUES (:consumer, :event, 1)
ON CONFLICT (consumer, event_id) DO UPDATE SET attempts = bus.delivery_failures.attempts + 1
RETURNING attempts, errors, reason
"""
COUNT_ERROR = """
INSERT INTO bus.delivery_failures (consumer, event_id, attempts, errors, reason, retry_time)
VALUES (:consumer, :event, 1, 1, :reason, :retry_time)
ON CONFLICT (consumer, event_id) DO UPDATE
SET errors = bus.delivery_failures.errors + 1, reason = :reason, retry_time = :retry_time,
    attempts = greatest(bus.delivery_failures.attempts, bus.delivery_failures.errors + 1)
RETURNING errors
"""
# It ended, and not by its own fault: this attempt is no crash.
DISCOUNT_ATTEMPT = """
UPDATE bus.delivery_failures SET attempts = greatest(attempts - 1, 0) WHERE consumer = :consumer AND event_id = :event
"""
DELETE_FAILURES = "DELETE FROM bus.delivery_failures WHERE consumer = :consumer AND event_id = :event"
INSERT = """
INSERT INTO bus.dead_letters (consumer, event_id, fact, reason, errors, crashes, create_time)
VALUES (:consumer, :event, :fact, :reason, :errors, :crashes, :create_time)
ON CONFLICT (consumer, event_id) DO UPDATE
SET reason = :reason, errors = :errors, crashes = :crashes, create_time = :create_time, redrive_time = NULL
"""
REDRIVE = """
UPDATE bus.dead_letters SET redrive_time = :now
WHERE consumer = :consumer AND event_id = :event AND redrive_time IS NULL
"""
EXISTS = "SELECT 1 FROM bus.dead_letters WHERE consumer = :consumer AND event_id = :event"
LIST = """
SELECT consumer, event_id, fact, reason, errors, crashes, create_time FROM bus.dead_letters
WHERE redrive_time IS NULL AND (:consumer = '' OR consumer = :consumer)
  AND (CAST(:before AS timestamptz) IS NULL
       OR (create_time, event_id) < (CAST(:before AS timestamptz), CAST(:event AS uuid)))
ORDER BY create_time DESC, event_id DESC LIMIT :limit
"""


async def list_dead_letters(
    reading: Transaction, *, consumer: str = "", after: Sequence[Any] | None = None, limit: int = 50
) -> Sequence[Any]:
    """Dead letters, newest first; `after` is (create_time, event_id) of the last one seen."""
    before, event = after or (None, "00000000-0000-0000-0000-000000000000")
    return await reading.all(LIST, consumer=consumer, before=before, event=event, limit=limit)


async def redrive(transaction: Transaction, consumer: str, event: str) -> None:
    """Lets the consumer's next sweep handle a dead letter again; a repeat changes nothing. Raises NotFound."""
    if not await transaction.run(REDRIVE, now=transaction.now, consumer=consumer, event=event):
        if await transaction.first(EXISTS, consumer=consumer, event=event):
            return
        raise NotFound(
            f"consumer {consumer!r} has no dead letter {event!r}", reason="DEAD_LETTER_NOT_FOUND", field="event_id"
        )
    await transaction.run(DELETE_FAILURES, consumer=consumer, event=event)
