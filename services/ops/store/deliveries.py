"""Rows of deliveries: what became of a message on each channel.

Rule: one that has ended stays as it ended, except that one which was called back too late was sent all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.ops.notify.escalation import State

COLUMNS = "id, notification, channel, step, state, tries, error, answer, created_at, tried_at, sent_at"
UNDER_WAY = "state IN ('queued', 'sending')"
INSERT = """
INSERT INTO ops.deliveries (id, notification, channel, step, state, tries, error, answer, created_at)
SELECT id, CAST(:notification AS uuid), channel, :step, 'queued', 0, '', '', :now
FROM unnest(CAST(:ids AS uuid[]), CAST(:channels AS text[])) AS d(id, channel)
ON CONFLICT (notification, step, channel) DO NOTHING
"""
GET = f"SELECT {COLUMNS} FROM ops.deliveries WHERE id = CAST(:id AS uuid)"
OF = f"""
SELECT {COLUMNS} FROM ops.deliveries WHERE notification = ANY(CAST(:notifications AS uuid[]))
ORDER BY notification, step, channel
"""
TRY = f"""
UPDATE ops.deliveries SET state = 'sending', tries = tries + 1, tried_at = :now
WHERE id = CAST(:id AS uuid) AND {UNDER_WAY} RETURNING {COLUMNS}
"""
COMPLAIN = f"UPDATE ops.deliveries SET error = :error WHERE id = CAST(:id AS uuid) AND {UNDER_WAY}"
END = f"""
UPDATE ops.deliveries SET state = :state, error = :error, answer = :answer,
    sent_at = CASE WHEN :state = 'sent' THEN CAST(:now AS timestamptz) ELSE sent_at END
WHERE id = CAST(:id AS uuid) AND ({UNDER_WAY} OR (state = 'suppressed' AND :state = 'sent')) RETURNING {COLUMNS}
"""
DROP = f"""
UPDATE ops.deliveries SET state = 'suppressed', error = :why
WHERE notification = CAST(:notification AS uuid) AND {UNDER_WAY}
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on one channel; the id is what the receiver sees."""

    id: str
    notification: str
    channel: str
    step: int
    state: State
    tries: int
    error: str
    answer: str
    created_at: datetime
    tried_at: datetime | None
    sent_at: datetime | None


async def begin(tx: Transaction, notification: str, step: int, ids: Sequence[str], channels: Sequence[str]) -> None:
    """Makes the deliveries of a step; those that are there stay."""
    values = {"notification": notification, "step": step, "ids": list(ids), "channels": list(channels)}
    await tx.run(INSERT, now=tx.now, **values)


async def get(tx: Transaction, id_: str) -> Delivery | None:
    """One of them."""
    row = await tx.first(GET, id=id_)
    return _delivery(row) if row else None


async def of(tx: Transaction, notifications: Iterable[str]) -> dict[str, list[Delivery]]:
    """The deliveries of each notification, by step and channel."""
    found: dict[str, list[Delivery]] = {id_: [] for id_ in notifications}
    for row in await tx.all(OF, notifications=list(found)):
        found[str(row.notification)].append(_delivery(row))
    return found


async def begin_try(tx: Transaction, id_: str) -> Delivery | None:
    """Counts a try that begins; None when the delivery has ended."""
    row = await tx.first(TRY, id=id_, now=tx.now)
    return _delivery(row) if row else None


async def complain(tx: Transaction, id_: str, error: str) -> None:
    """Keeps what went wrong last."""
    await tx.run(COMPLAIN, id=id_, error=error)


async def end(tx: Transaction, id_: str, state: State, *, error: str = "", answer: str = "") -> Delivery | None:
    """Ends one; None when it had ended already."""
    row = await tx.first(END, id=id_, state=state.value, error=error, answer=answer, now=tx.now)
    return _delivery(row) if row else None


async def drop(tx: Transaction, notification: str, why: str) -> int:
    """Ends those that are still under way; how many."""
    return await tx.run(DROP, notification=notification, why=why)


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=str(row.id),
        notification=str(row.notification),
        channel=row.channel,
        step=row.step,
        state=State(row.state),
        tries=row.tries,
        error=row.error,
        answer=row.answer,
        created_at=row.created_at,
        tried_at=row.tried_at,
        sent_at=row.sent_at,
    )


async def errand_of(tx: Transaction, key: str) -> str:
    """The errand with a key."""
    return str(await tx.value("SELECT id FROM ops.errands WHERE key = :key", key=key))


async def answer_of(tx: Transaction, errand: str) -> tuple[bool, dict[str, Any]]:
    """Whether an errand has ended, and its answer; an error is one, too."""
    row = await tx.first("SELECT state, answer, error FROM ops.errands WHERE id = CAST(:id AS uuid)", id=errand)
    if row is None or row.state == "pending":
        return False, {}
    return True, row.answer or {"answer": row.error}
