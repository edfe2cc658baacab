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

COLUMNS = "id, notification, channel, step, state, tries, error, response, create_time, try_time, send_time"
UNDER_WAY = "state IN ('queued', 'sending')"
INSERT = """
INSERT INTO ops.deliveries (id, notification, merchants, channel, step, state, tries, error, response, create_time)
SELECT d.id, n.id, n.merchants, d.channel, :step, 'queued', 0, '', '', :now
FROM ops.notifications n, unnest(CAST(:ids AS uuid[]), CAST(:channels AS text[])) AS d(id, channel)
WHERE n.id = CAST(:notification AS uuid)
ON CONFLICT (notification, step, channel) DO NOTHING
"""
GET = f"SELECT {COLUMNS} FROM ops.deliveries WHERE id = CAST(:id AS uuid)"
OF = f"""
SELECT {COLUMNS} FROM ops.deliveries WHERE notification = ANY(CAST(:notifications AS uuid[]))
ORDER BY notification, step, channel
"""
BEGIN_TRY = f"""
UPDATE ops.deliveries SET state = 'sending', tries = tries + 1, try_time = :now
WHERE id = CAST(:id AS uuid) AND {UNDER_WAY} RETURNING {COLUMNS}
"""
SAVE_ERROR = f"UPDATE ops.deliveries SET error = :error WHERE id = CAST(:id AS uuid) AND {UNDER_WAY}"
END = f"""
UPDATE ops.deliveries SET state = :state, error = :error, response = :response,
    send_time = CASE WHEN :state = 'sent' THEN CAST(:now AS timestamptz) ELSE send_time END
WHERE id = CAST(:id AS uuid) AND ({UNDER_WAY} OR (state = 'suppressed' AND :state = 'sent')) RETURNING {COLUMNS}
"""
SUPPRESS = f"""
UPDATE ops.deliveries SET state = 'suppressed', error = :reason
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
    response: str
    create_time: datetime
    try_time: datetime | None
    send_time: datetime | None


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
    row = await tx.first(BEGIN_TRY, id=id_, now=tx.now)
    return _delivery(row) if row else None


async def save_error(tx: Transaction, id_: str, error: str) -> None:
    """Saves what went wrong last."""
    await tx.run(SAVE_ERROR, id=id_, error=error)


async def end(tx: Transaction, id_: str, state: State, *, error: str = "", response: str = "") -> Delivery | None:
    """Ends one; None when it had ended already."""
    row = await tx.first(END, id=id_, state=state.value, error=error, response=response, now=tx.now)
    return _delivery(row) if row else None


async def suppress(tx: Transaction, notification: str, reason: str) -> int:
    """Ends those that are still under way; how many."""
    return await tx.run(SUPPRESS, notification=notification, reason=reason)


def _delivery(row: Any) -> Delivery:
    converted = {"id": str(row.id), "notification": str(row.notification), "state": State(row.state)}
    return Delivery(**row._asdict() | converted)


async def errand_result(tx: Transaction, errand: str) -> tuple[bool, dict[str, Any]]:
    """Whether an errand has ended, and its answer; an error is one, too."""
    row = await tx.first("SELECT state, answer, error FROM ops.errands WHERE id = CAST(:id AS uuid)", id=errand)
    if row is None or row.state == "pending":
        return False, {}
    return True, row.answer or {"response": row.error}
