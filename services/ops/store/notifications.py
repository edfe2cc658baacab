"""Rows of notifications: messages that fill, go out, and wait for somebody to answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.notify.batching import Batch, Pace
from services.ops.notify.escalation import State
from services.ops.notify.model import Notice, Severity

# Plugins and incidents a message can be found by; a flood has more.
NAMED = 200

COLUMNS = """id, route, urgent, state, detail, severity, facts, repeats, kinds, lines, plugins, incidents, step,
    created_at, due_at, act_by, acknowledged_at, acknowledged_by"""
QUEUED = f"SELECT {COLUMNS} FROM ops.notifications WHERE state = 'queued' ORDER BY id FOR UPDATE"
DUE = f"""
SELECT {COLUMNS} FROM ops.notifications WHERE state = 'queued' AND due_at <= :now
ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
"""
OVERDUE = f"""
SELECT {COLUMNS} FROM ops.notifications WHERE act_by <= :now ORDER BY act_by LIMIT :limit FOR UPDATE SKIP LOCKED
"""
# Of those somebody may still be asked about: whose incidents have all ended.
ENDED = f"""
SELECT {COLUMNS} FROM ops.notifications n
WHERE act_by IS NOT NULL AND incidents <> '{{}}' AND NOT EXISTS (
    SELECT 1 FROM unnest(n.incidents) AS named(id)
    WHERE NOT EXISTS (SELECT 1 FROM ops.incidents i WHERE i.incident = named.id AND i.ended_at IS NOT NULL))
ORDER BY act_by LIMIT :limit FOR UPDATE SKIP LOCKED
"""
ENDS = (
    "SELECT incident, ended_at FROM ops.incidents WHERE incident = ANY(CAST(:ids AS text[])) AND ended_at IS NOT NULL"
)
GET = f"SELECT {COLUMNS} FROM ops.notifications WHERE id = CAST(:id AS uuid)"
INSERT = f"""
INSERT INTO ops.notifications ({COLUMNS}) VALUES (
    CAST(:id AS uuid), :route, :urgent, :state, :detail, :severity, :facts, :repeats, CAST(:kinds AS jsonb),
    CAST(:lines AS jsonb), CAST(:plugins AS text[]), CAST(:incidents AS text[]), :step, :created_at, :due_at, :act_by,
    :acknowledged_at, :acknowledged_by)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, detail = excluded.detail, severity = excluded.severity,
    facts = excluded.facts, repeats = excluded.repeats, kinds = excluded.kinds, lines = excluded.lines,
    plugins = excluded.plugins, incidents = excluded.incidents, step = excluded.step, due_at = excluded.due_at,
    act_by = excluded.act_by, acknowledged_at = excluded.acknowledged_at, acknowledged_by = excluded.acknowledged_by
"""
KNOWN = """
SELECT route, key, notification FROM ops.notification_keys
WHERE until > :now AND (route, key) IN (SELECT * FROM unnest(CAST(:routes AS text[]), CAST(:keys AS text[])))
"""
REMEMBER = """
INSERT INTO ops.notification_keys (route, key, notification, until)
SELECT route, key, notification, :until
FROM unnest(CAST(:routes AS text[]), CAST(:keys AS text[]), CAST(:ids AS uuid[])) AS k(route, key, notification)
ON CONFLICT (route, key) DO UPDATE SET notification = excluded.notification, until = excluded.until
"""
REPEATED = """
UPDATE ops.notifications n SET repeats = repeats + again.times
FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS integer[])) AS again(id, times) WHERE n.id = again.id
"""
PACE = "SELECT due, gap FROM ops.notification_paces WHERE route = :route AND urgent = :urgent"
KEEP_PACE = """
INSERT INTO ops.notification_paces (route, urgent, due, gap) VALUES (:route, :urgent, :due, :gap)
ON CONFLICT (route, urgent) DO UPDATE SET due = excluded.due, gap = excluded.gap
"""
FILTERS = {
    "state": "state = :state",
    "route": "route = :route",
    "incident": "incidents @> ARRAY[CAST(:incident AS text)]",
    "plugin": "plugins @> ARRAY[CAST(:plugin AS text)]",
    "before": "(created_at, id) < (:before, CAST(:before_id AS uuid))",
}
FORGET = """
DELETE FROM ops.notifications WHERE id IN (
    SELECT id FROM ops.notifications
    WHERE created_at < :before AND state NOT IN ('queued', 'sending') AND act_by IS NULL
    ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED)
"""
FORGET_KEYS = """
DELETE FROM ops.notification_keys WHERE (route, key) IN (
    SELECT route, key FROM ops.notification_keys WHERE until < :before LIMIT :batch FOR UPDATE SKIP LOCKED)
"""
FORGET_ERRANDS = """
DELETE FROM ops.errands WHERE id IN (
    SELECT id FROM ops.errands WHERE state <> 'pending' AND create_time < :before LIMIT :batch FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Notification:
    """One message; `step` is -1 until it goes out."""

    id: str
    route: str
    urgent: bool
    created_at: datetime
    due_at: datetime
    batch: Batch = field(default_factory=Batch)
    state: State = State.QUEUED
    detail: str = ""
    plugins: tuple[str, ...] = ()
    incidents: tuple[str, ...] = ()
    step: int = -1
    act_by: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""

    def add(self, notices: Sequence[Notice]) -> Notification:
        """With more to tell."""
        plugins = dict.fromkeys((*self.plugins, *(each.plugin for each in notices if each.plugin)))
        incidents = dict.fromkeys((*self.incidents, *(each.incident for each in notices if each.incident)))
        return replace(
            self,
            batch=self.batch.add(notices),
            plugins=tuple(plugins)[:NAMED],
            incidents=tuple(incidents)[:NAMED],
        )


async def queued(tx: Transaction) -> list[Notification]:
    """Those that facts may still join, locked."""
    return [_notification(row) for row in await tx.all(QUEUED)]


async def due(tx: Transaction, limit: int) -> list[Notification]:
    """Those whose time to go out has come, locked."""
    return [_notification(row) for row in await tx.all(DUE, now=tx.now, limit=limit)]


async def overdue(tx: Transaction, limit: int) -> list[Notification]:
    """Those nobody answered in time, locked."""
    return [_notification(row) for row in await tx.all(OVERDUE, now=tx.now, limit=limit)]


async def ended(tx: Transaction, limit: int) -> list[Notification]:
    """Those somebody may still be asked about though every incident they name has ended, locked."""
    return [_notification(row) for row in await tx.all(ENDED, limit=limit)]


async def ends(tx: Transaction, incidents: Iterable[str]) -> dict[str, datetime]:
    """When incidents ended; those that have not are left out."""
    return {row.incident: row.ended_at for row in await tx.all(ENDS, ids=list(incidents))}


async def get(tx: Transaction, id_: str, *, lock: bool = False) -> Notification | None:
    """One of them."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET, id=id_)
    return _notification(row) if row else None


async def save(tx: Transaction, found: Notification) -> None:
    """Writes one, new or changed."""
    batch = found.batch
    await tx.run(
        INSERT,
        id=found.id,
        route=found.route,
        urgent=found.urgent,
        state=found.state.value,
        detail=found.detail,
        severity=int(batch.severity),
        facts=batch.facts,
        repeats=batch.repeats,
        kinds=json.dumps(dict(batch.kinds)),
        lines=json.dumps([_line(line) for line in batch.lines]),
        plugins=list(found.plugins),
        incidents=list(found.incidents),
        step=found.step,
        created_at=found.created_at,
        due_at=found.due_at,
        act_by=found.act_by,
        acknowledged_at=found.acknowledged_at,
        acknowledged_by=found.acknowledged_by,
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
    sql = f"SELECT {COLUMNS} FROM ops.notifications {condition} ORDER BY created_at DESC, id DESC LIMIT :limit"
    return [_notification(row) for row in await tx.all(sql, limit=limit, **values)]


async def known(tx: Transaction, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Which news of which route was told within its window, and by which notification."""
    listed = list(pairs)
    if not listed:
        return {}
    routes, keys = [route for route, _ in listed], [key for _, key in listed]
    rows = await tx.all(KNOWN, now=tx.now, routes=routes, keys=keys)
    return {(row.route, row.key): str(row.notification) for row in rows}


async def remember(tx: Transaction, told: Mapping[tuple[str, str], str], until: datetime) -> None:
    """Keeps which news was told by which notification, until a moment."""
    if told:
        routes, keys = [route for route, _ in told], [key for _, key in told]
        await tx.run(REMEMBER, routes=routes, keys=keys, ids=list(told.values()), until=until)


async def repeated(tx: Transaction, times: Mapping[str, int]) -> None:
    """Counts what happened again."""
    if times:
        await tx.run(REPEATED, ids=list(times), times=list(times.values()))


async def pace(tx: Transaction, route: str, *, urgent: bool) -> Pace | None:
    """When the route's last message was due."""
    row = await tx.first(PACE, route=route, urgent=urgent)
    return Pace(row.due, timedelta(seconds=row.gap)) if row else None


async def keep_pace(tx: Transaction, route: str, new: Pace, *, urgent: bool) -> None:
    """Remembers when the route's last message is due."""
    await tx.run(KEEP_PACE, route=route, urgent=urgent, due=new.due, gap=new.gap.total_seconds())


async def forget(tx: Transaction, *, messages: datetime, errands: datetime, batch: int) -> int:
    """Removes up to `batch` old rows of each kind; how many went."""
    gone = await tx.run(FORGET, before=messages, batch=batch)
    gone += await tx.run(FORGET_KEYS, before=tx.now, batch=batch)
    return gone + await tx.run(FORGET_ERRANDS, before=errands, batch=batch)


def _line(notice: Notice) -> dict[str, Any]:
    names = ("event", "fact", "headline", "key", "plugin", "merchant", "incident", "action")
    values = {name: getattr(notice, name) for name in names}
    return values | {"severity": int(notice.severity), "time": notice.time.isoformat()}


def _notice(row: dict[str, Any]) -> Notice:
    return Notice(**row | {"severity": Severity(row["severity"]), "time": datetime.fromisoformat(row["time"])})


def _notification(row: Any) -> Notification:
    lines = tuple(_notice(line) for line in row.lines)
    return Notification(
        id=str(row.id),
        route=row.route,
        urgent=row.urgent,
        created_at=row.created_at,
        due_at=row.due_at,
        batch=Batch(Severity(row.severity), row.facts, row.repeats, row.kinds, lines),
        state=State(row.state),
        detail=row.detail,
        plugins=tuple(row.plugins),
        incidents=tuple(row.incidents),
        step=row.step,
        act_by=row.act_by,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
    )
