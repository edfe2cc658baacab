"""Rows of notifications: messages that fill, go out, and wait for somebody to answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.notify.batching import Batch, Throttle
from services.ops.notify.escalation import State
from services.ops.notify.model import Notice
from services.ops.severity import Severity
from services.ops.store import repeats

# Plugins and incidents a message can be found by; a flood has more.
NAMED = 200
LISTS = ("plugins", "merchants", "incidents")
PLAIN = (
    "id", "route", "urgent", "detail", "step", "create_time", "due_time", "act_by_time", "acknowledge_time",
    "acknowledged_by",
)  # fmt: skip
COLUMNS = ", ".join((*PLAIN, *LISTS, "state", "severity", "facts", "repeats", "kinds", "lines"))
QUEUED = f"SELECT {COLUMNS} FROM ops.notifications WHERE state = 'queued' ORDER BY id FOR UPDATE"
DUE = f"""
SELECT {COLUMNS} FROM ops.notifications WHERE state = 'queued' AND due_time <= :now
ORDER BY due_time LIMIT :limit FOR UPDATE SKIP LOCKED
"""
OVERDUE = f"""
SELECT {COLUMNS} FROM ops.notifications WHERE act_by_time <= :now
ORDER BY act_by_time LIMIT :limit FOR UPDATE SKIP LOCKED
"""
# Of those somebody may still be asked about: whose incidents have all ended.
SETTLED = f"""
SELECT {COLUMNS} FROM ops.notifications n
WHERE act_by_time IS NOT NULL AND incidents <> '{{}}' AND NOT EXISTS (
    SELECT 1 FROM unnest(n.incidents) AS named(id)
    WHERE NOT EXISTS (SELECT 1 FROM ops.incidents i WHERE i.incident = named.id AND i.end_time IS NOT NULL))
ORDER BY act_by_time LIMIT :limit FOR UPDATE SKIP LOCKED
"""
ENDS = (
    "SELECT incident, end_time FROM ops.incidents WHERE incident = ANY(CAST(:ids AS text[])) AND end_time IS NOT NULL"
)
GET = f"SELECT {COLUMNS} FROM ops.notifications WHERE id = CAST(:id AS uuid)"
# What a message is never changes: its id, route, urgency and when it was made.
CHANGING = (
    "state", "detail", "severity", "facts", "repeats", "kinds", "lines", *LISTS, "step", "due_time", "act_by_time",
    "acknowledge_time", "acknowledged_by",
)  # fmt: skip
CASTS = {"id": "uuid", "kinds": "jsonb", "lines": "jsonb", **dict.fromkeys(LISTS, "text[]")}
INSERT = f"""
INSERT INTO ops.notifications ({COLUMNS})
VALUES ({", ".join(f"CAST(:{n} AS {CASTS[n]})" if n in CASTS else f":{n}" for n in COLUMNS.split(", "))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in CHANGING)}
"""
THROTTLE = "SELECT due_time, interval_seconds FROM ops.notification_throttles WHERE route = :route AND urgent = :urgent"
SAVE_THROTTLE = """
INSERT INTO ops.notification_throttles (route, urgent, due_time, interval_seconds)
VALUES (:route, :urgent, :due_time, :interval_seconds)
ON CONFLICT (route, urgent) DO UPDATE SET due_time = excluded.due_time, interval_seconds = excluded.interval_seconds
"""
FILTERS = {
    "state": "state = :state",
    "route": "route = :route",
    "incident": "incidents @> ARRAY[CAST(:incident AS text)]",
    "plugin": "plugins @> ARRAY[CAST(:plugin AS text)]",
    "before": "(create_time, id) < (:before, CAST(:before_id AS uuid))",
}
DELETE = """
DELETE FROM ops.notifications WHERE id IN (
    SELECT id FROM ops.notifications
    WHERE create_time < :before AND state NOT IN ('queued', 'sending') AND act_by_time IS NULL
    ORDER BY create_time LIMIT :batch FOR UPDATE SKIP LOCKED)
"""
DELETE_ERRANDS = """
DELETE FROM ops.errands WHERE id IN (
    SELECT id FROM ops.errands WHERE state <> 'pending' AND create_time < :before LIMIT :batch FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Notification:
    """One message; `step` is -1 until it goes out."""

    id: str
    route: str
    urgent: bool
    create_time: datetime
    due_time: datetime
    batch: Batch = field(default_factory=Batch)
    state: State = State.QUEUED
    detail: str = ""
    plugins: tuple[str, ...] = ()
    merchants: tuple[str, ...] = ()
    incidents: tuple[str, ...] = ()
    step: int = -1
    act_by_time: datetime | None = None
    acknowledge_time: datetime | None = None
    acknowledged_by: str = ""

    def add(self, notices: Sequence[Notice]) -> Notification:
        """With more facts."""
        # The empty merchant of a fact of the plane itself counts, so that no message with one is a merchant's alone.
        added = {
            "plugins": [each.plugin for each in notices if each.plugin],
            "merchants": [each.merchant for each in notices],
            "incidents": [each.incident for each in notices if each.incident],
        }
        named: dict[str, Any] = {n: tuple(dict.fromkeys((*getattr(self, n), *added[n])))[:NAMED] for n in LISTS}
        return replace(self, batch=self.batch.add(notices), **named)


async def queued(tx: Transaction) -> list[Notification]:
    """Those that facts may still join, locked."""
    return [_notification(row) for row in await tx.all(QUEUED)]


async def due(tx: Transaction, limit: int) -> list[Notification]:
    """Those whose time to go out has come, locked."""
    return [_notification(row) for row in await tx.all(DUE, now=tx.now, limit=limit)]


async def overdue(tx: Transaction, limit: int) -> list[Notification]:
    """Those nobody answered in time, locked."""
    return [_notification(row) for row in await tx.all(OVERDUE, now=tx.now, limit=limit)]


async def settled(tx: Transaction, limit: int) -> list[Notification]:
    """Those somebody may still be asked about though every incident they name has ended, locked."""
    return [_notification(row) for row in await tx.all(SETTLED, limit=limit)]


async def incident_ends(tx: Transaction, incidents: Iterable[str]) -> dict[str, datetime]:
    """When incidents ended; those that have not are left out."""
    return {row.incident: row.end_time for row in await tx.all(ENDS, ids=list(incidents))}


async def get(tx: Transaction, id_: str, *, lock: bool = False) -> Notification | None:
    """One of them."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET, id=id_)
    return _notification(row) if row else None


async def save(tx: Transaction, found: Notification) -> None:
    """Saves one, new or changed."""
    batch = found.batch
    await tx.run(
        INSERT,
        state=found.state.value,
        severity=int(batch.severity),
        facts=batch.facts,
        repeats=batch.repeats,
        kinds=json.dumps(dict(batch.kinds)),
        lines=json.dumps([_line(line) for line in batch.lines]),
        **{name: list(getattr(found, name)) for name in LISTS},
        **{name: getattr(found, name) for name in PLAIN},
    )


async def newest(
    tx: Transaction, filters: Mapping[str, str], after: Sequence[Any] | None, limit: int
) -> list[Notification]:
    """Newest first; `after` is the moment and id of the last one seen."""
    values: dict[str, Any] = {name: value for name, value in filters.items() if value}
    where = [FILTERS[name] for name in values]
    if after:
        where.append(FILTERS["before"])
        values |= {"before": after[0], "before_id": after[1]}
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    sql = f"SELECT {COLUMNS} FROM ops.notifications {condition} ORDER BY create_time DESC, id DESC LIMIT :limit"
    return [_notification(row) for row in await tx.all(sql, limit=limit, **values)]


async def throttle(tx: Transaction, route: str, *, urgent: bool) -> Throttle | None:
    """When the route's last message was due."""
    row = await tx.first(THROTTLE, route=route, urgent=urgent)
    return Throttle(row.due_time, timedelta(seconds=row.interval_seconds)) if row else None


async def save_throttle(tx: Transaction, route: str, new: Throttle, *, urgent: bool) -> None:
    """Saves when the route's last message is due."""
    seconds = new.interval.total_seconds()
    await tx.run(SAVE_THROTTLE, route=route, urgent=urgent, due_time=new.due_time, interval_seconds=seconds)


async def delete_before(tx: Transaction, *, messages: datetime, errands: datetime, batch: int) -> int:
    """Removes up to `batch` old rows of each kind; how many went."""
    gone = await tx.run(DELETE, before=messages, batch=batch)
    gone += await repeats.delete_before(tx, tx.now, batch)
    return gone + await tx.run(DELETE_ERRANDS, before=errands, batch=batch)


def _line(notice: Notice) -> dict[str, Any]:
    names = ("event", "fact", "headline", "key", "plugin", "merchant", "incident", "action", "command")
    values = {name: getattr(notice, name) for name in names}
    return values | {"severity": int(notice.severity), "time": notice.time.isoformat()}


def _notice(row: dict[str, Any]) -> Notice:
    return Notice(**row | {"severity": Severity(row["severity"]), "time": datetime.fromisoformat(row["time"])})


def _notification(row: Any) -> Notification:
    lines = tuple(_notice(line) for line in row.lines)
    values: dict[str, Any] = {name: getattr(row, name) for name in PLAIN} | {"id": str(row.id)}
    values |= {name: tuple(getattr(row, name)) for name in LISTS}
    batch = Batch(Severity(row.severity), row.facts, row.repeats, row.kinds, lines)
    return Notification(batch=batch, state=State(row.state), **values)
