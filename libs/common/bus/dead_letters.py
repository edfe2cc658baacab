"""Trouble and dead letters: facts that a consumer could not handle, and the way back.

Rule: errors (the reaction raised) and crashes (it started and never ended) are counted apart, since a fact that
kills its consumer must be parked sooner. A parked fact is visible, keeps its reason, and is handled again after a
redrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.database import Database, Transaction
from libs.common.errors import NotFound

ERRORS = 8
CRASHES = 3

STARTED = """
INSERT INTO bus.trouble (consumer, event_id, starts) VALUES (:consumer, :event, 1)
ON CONFLICT (consumer, event_id) DO UPDATE SET starts = bus.trouble.starts + 1
RETURNING starts, errors, reason
"""
RAISED = """
INSERT INTO bus.trouble (consumer, event_id, starts, errors, reason, retry_at)
VALUES (:consumer, :event, 1, 1, :reason, :retry_at)
ON CONFLICT (consumer, event_id) DO UPDATE
SET errors = bus.trouble.errors + 1, reason = :reason, retry_at = :retry_at,
    starts = greatest(bus.trouble.starts, bus.trouble.errors + 1)
RETURNING errors
"""
PARK = """
INSERT INTO bus.dead_letter (consumer, event_id, fact, reason, errors, crashes, at)
VALUES (:consumer, :event, :fact, :reason, :errors, :crashes, :at)
ON CONFLICT (consumer, event_id) DO UPDATE
SET reason = :reason, errors = :errors, crashes = :crashes, at = :at, redriven_at = NULL
"""
# It ended, without blame: this start is no crash.
EXCUSED = """
UPDATE bus.trouble SET starts = greatest(starts - 1, 0) WHERE consumer = :consumer AND event_id = :event
"""
FORGET = "DELETE FROM bus.trouble WHERE consumer = :consumer AND event_id = :event"
REDRIVE = """
UPDATE bus.dead_letter SET redriven_at = :now
WHERE consumer = :consumer AND event_id = :event AND redriven_at IS NULL
"""
REDRIVEN = "SELECT 1 FROM bus.dead_letter WHERE consumer = :consumer AND event_id = :event"
LETTERS = """
SELECT consumer, event_id, fact, reason, errors, crashes, at FROM bus.dead_letter
WHERE redriven_at IS NULL AND (:consumer = '' OR consumer = :consumer)
  AND (CAST(:before AS timestamptz) IS NULL OR (at, event_id) < (CAST(:before AS timestamptz), CAST(:event AS uuid)))
ORDER BY at DESC, event_id DESC LIMIT :limit
"""


async def dead_letters(
    reading: Transaction, *, consumer: str = "", after: Sequence[Any] | None = None, limit: int = 50
) -> Sequence[Any]:
    """Parked facts, newest first; `after` is (at, event_id) of the last one seen."""
    at, event = after or (None, "00000000-0000-0000-0000-000000000000")
    return await reading.all(LETTERS, consumer=consumer, before=at, event=event, limit=limit)


async def redrive(database: Database, consumer: str, event: str) -> None:
    """Lets the consumer's next sweep handle a parked fact again; a repeat changes nothing. Raises NotFound."""

    async def work(transaction: Transaction) -> None:
        if not await transaction.run(REDRIVE, now=transaction.now, consumer=consumer, event=event):
            if await transaction.first(REDRIVEN, consumer=consumer, event=event):
                return
            raise NotFound(
                f"consumer {consumer!r} has no dead letter {event!r}", reason="DEAD_LETTER_NOT_FOUND", field="event_id"
            )
        await transaction.run(FORGET, consumer=consumer, event=event)

    await database.transaction(work)
