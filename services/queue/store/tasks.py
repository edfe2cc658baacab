"""Rows of tasks: made by triage, taken back when a lease lapses, and what operators do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.queue.leases import NO_WORKER
from services.queue.store.columns import columns
from services.queue.store.history import COLUMNS as HISTORY

# No id comes before the one, none after the other.
FIRST, LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
TASK = """t.id, t.report, t.plugin, t.merchant, t.strategy, t.toolset, t.state, t.priority, t.attempts, t.crashes,
    t.max_attempts, t.token, t.worker, t.estimated_seconds, t.lease_expire_time, t.claim_time, t.run_time,
    t.create_time, t.update_time, t.end_time, t.reason, t.traceparent"""
INSERT = """
INSERT INTO queue.tasks (id, report, plugin, merchant, strategy, toolset, state, priority, rank, max_attempts,
    estimated_seconds, run_time, create_time, update_time, traceparent)
SELECT g.id, g.report, g.plugin, g.merchant, g.strategy, g.toolset, 'pending', g.priority, g.rank, :max_attempts,
    g.seconds, :now, :now, :now, g.traceparent
FROM unnest(CAST(:id AS uuid[]), CAST(:report AS uuid[]), CAST(:plugin AS text[]), CAST(:merchant AS text[]),
    CAST(:strategy AS text[]), CAST(:toolset AS integer[]), CAST(:priority AS integer[]),
    CAST(:rank AS timestamptz[]), CAST(:estimated_seconds AS real[]), CAST(:traceparent AS text[]))
    AS g (id, report, plugin, merchant, strategy, toolset, priority, rank, seconds, traceparent)
"""
TOOLSETS = "SELECT id, tools FROM queue.toolsets WHERE id > :after ORDER BY id"
RECORD_CLAIM = """
INSERT INTO queue.toolset_claims AS c (toolset, claim_time)
SELECT toolset, :now FROM unnest(CAST(:toolsets AS integer[])) AS g (toolset) ORDER BY toolset
ON CONFLICT (toolset) DO UPDATE SET claim_time = greatest(c.claim_time, EXCLUDED.claim_time)
"""
UNCLAIMED_TOOLSETS = """
SELECT s.id, s.tools FROM queue.toolsets s LEFT JOIN queue.toolset_claims c ON c.toolset = s.id
WHERE coalesce(c.claim_time, '-infinity') < :before ORDER BY s.id
"""
INSERT_TOOLSET = "INSERT INTO queue.toolsets (tools) VALUES (CAST(:tools AS text[])) ON CONFLICT (tools) DO NOTHING"
GET = f"SELECT {TASK} FROM queue.tasks t WHERE t.id = CAST(:id AS uuid)"
LOCK = f"{GET} FOR UPDATE"
ACTIVE_OF = f"""
SELECT {TASK} FROM queue.tasks t
WHERE t.report = CAST(:report AS uuid) AND t.state IN ('pending', 'processing', 'retrying') FOR UPDATE
"""
_REST = """(:plugin = '' OR t.plugin = :plugin) AND (:worker = '' OR t.worker = :worker)
    AND t.id < CAST(:after AS uuid)"""
_LATEST = "ORDER BY t.id DESC LIMIT :limit"
LIST = f"SELECT {TASK} FROM queue.tasks t WHERE {_REST} {_LATEST}"
# Rows are compared, since with `state = :state` the planner would rather look for a rare state among all tasks.
LIST_IN_STATE = f"""
SELECT {TASK} FROM queue.tasks t
WHERE (t.state, t.id) >= (CAST(:state AS text), CAST('{FIRST}' AS uuid))
  AND (t.state, t.id) < (CAST(:state AS text), CAST(:after AS uuid)) AND {_REST}
ORDER BY t.state DESC, t.id DESC LIMIT :limit
"""
# Only what is active has an index by report; everything else a report had is in its history.
LIST_OF_REPORT = f"""
SELECT {TASK} FROM queue.tasks t
WHERE t.id IN (
    SELECT h.task FROM queue.history h WHERE h.report = CAST(:report AS uuid)
    UNION SELECT a.id FROM queue.tasks a
    WHERE a.report = CAST(:report AS uuid) AND a.state IN ('pending', 'processing', 'retrying'))
  AND (:state = '' OR t.state = :state) AND {_REST} {_LATEST}
"""
DUE = """
WITH due AS MATERIALIZED (
    SELECT id FROM queue.tasks WHERE state = 'retrying' AND run_time <= :now
    ORDER BY run_time LIMIT :limit FOR UPDATE SKIP LOCKED),
updated AS (
    UPDATE queue.tasks t SET state = 'pending', update_time = :now
    WHERE t.id = ANY(ARRAY(SELECT id FROM due)) RETURNING t.priority),
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'task', m.state, m.sign * count(*), m.sign * sum(priority), 0
    FROM updated, (VALUES ('retrying', -1), ('pending', 1)) AS m (state, sign) GROUP BY m.state, m.sign)
SELECT count(*) FROM updated
"""
# One statement: state and time are looked at again under the lock, so a lease renewed meanwhile stays.
_TAKE_BACK = """
WITH lapsed AS MATERIALIZED (
    SELECT id FROM queue.tasks WHERE state = '{state}' AND {which}
    ORDER BY {order} LIMIT :limit FOR UPDATE SKIP LOCKED),
ended AS (
    UPDATE queue.tasks t SET crashes = t.crashes + {crash}, token = t.token + 1, lease_expire_time = NULL,
        update_time = :now, state = CASE WHEN t.crashes + {crash} >= :most THEN 'failed' ELSE 'pending' END,
        end_time = CASE WHEN t.crashes + {crash} >= :most THEN CAST(:now AS timestamptz) END, reason = :reason
    WHERE t.id = ANY(ARRAY(SELECT id FROM lapsed)) RETURNING t.*),
numbered AS (
    UPDATE queue.reports r SET history_count = r.history_count + 1 FROM ended e WHERE r.id = e.report
    RETURNING r.id AS report_id, r.history_count, r.merchant, e.id, e.strategy, e.worker, e.claim_time),
history AS (
    INSERT INTO queue.history ({history})
    SELECT queue.uuid_v7(:now), report_id, history_count, merchant, id, strategy, worker, '', false, :outcome,
        '{{}}', '{{}}', coalesce(extract(epoch FROM CAST(:now AS timestamptz) - claim_time), 0), :now, :actor
    FROM numbered),
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'task', '{state}', -count(*), -sum(priority), 0 FROM ended HAVING count(*) > 0
    UNION ALL SELECT 'task', state, count(*), sum(priority), 0 FROM ended GROUP BY state)
SELECT id, report, plugin, merchant, strategy, state, worker, token, priority, crashes, attempts, traceparent,
    claim_time, reason
FROM ended
"""
_PROCESSING = {"state": "processing", "order": "id", "history": HISTORY}
REAP = _TAKE_BACK.format(which="lease_expire_time < :now", crash=1, **_PROCESSING)
RESET = _TAKE_BACK.format(which="claim_time < :before", crash=0, **_PROCESSING)
REVOKE = _TAKE_BACK.format(which="strategy = :strategy", crash=0, **_PROCESSING)
STRAND = _TAKE_BACK.format(
    which="toolset = :toolset AND update_time < :before", crash=0, state="pending", order="rank, id", history=HISTORY
)
SAVE = """
UPDATE queue.tasks SET state = :state, priority = :priority, rank = :rank, attempts = :attempts, crashes = :crashes,
    token = token + 1, lease_expire_time = NULL, run_time = :run_time, update_time = :now,
    end_time = :end_time, reason = :reason
WHERE id = CAST(:id AS uuid)
"""
CLEAN_UP = """
WITH old AS MATERIALIZED (
    SELECT id FROM queue.tasks
    WHERE id < CAST(:newest AS uuid) AND state IN ('completed', 'failed', 'cancelled') AND end_time < :before
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM queue.tasks t WHERE t.id = ANY(ARRAY(SELECT id FROM old))
    RETURNING t.state, t.priority, extract(epoch FROM t.end_time - t.create_time) AS seconds),
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'task', state, -count(*), -sum(priority), CASE WHEN state = 'completed' THEN -sum(seconds) ELSE 0 END
    FROM gone GROUP BY state)
SELECT count(*) FROM gone
"""


@dataclass(frozen=True)
class NewTask:
    """A task triage wants; `toolset` is the id of its tools."""

    id: str
    report: str
    plugin: str
    merchant: str
    strategy: str
    toolset: int
    priority: int
    rank: datetime
    estimated_seconds: float
    traceparent: str


@dataclass(frozen=True)
class Filters:
    """Which tasks a list wants; empty means any."""

    state: str
    report: str
    plugin: str
    worker: str


async def insert(tx: Transaction, tasks: Sequence[NewTask], max_attempts: int) -> None:
    """Saves new tasks, all waiting."""
    fields = "id report plugin merchant strategy toolset priority rank estimated_seconds traceparent"
    await tx.run(INSERT, now=tx.now, max_attempts=max_attempts, **columns(tasks, fields))


async def toolsets(tx: Transaction, after: int = 0) -> dict[int, tuple[str, ...]]:
    """Tool sets with an id above `after`; they are never changed."""
    return {row.id: tuple(row.tools) for row in await tx.all(TOOLSETS, after=after)}


async def record_claim(tx: Transaction, claimed: Sequence[int]) -> None:
    """Records that a worker asked for tasks of these tool sets."""
    await tx.run(RECORD_CLAIM, toolsets=list(claimed), now=tx.now)


async def unclaimed_toolsets(tx: Transaction, before: datetime) -> dict[int, tuple[str, ...]]:
    """Tool sets that no worker asked for since a moment."""
    return {row.id: tuple(row.tools) for row in await tx.all(UNCLAIMED_TOOLSETS, before=before)}


async def strand(tx: Transaction, toolset: int, before: datetime, *, reason: str, limit: int) -> Sequence[Any]:
    """Ends tasks of a tool set that have waited since before a moment."""
    values = {"outcome": NO_WORKER, "actor": "queue", "reason": reason, "most": 0}
    return await tx.all(STRAND, now=tx.now, before=before, toolset=toolset, limit=limit, **values)


async def insert_toolset(tx: Transaction, tools: Sequence[str]) -> None:
    """Makes sure that a tool set has an id."""
    await tx.run(INSERT_TOOLSET, tools=list(tools))


async def get(tx: Transaction, task: str) -> Any | None:
    """One task."""
    return await tx.first(GET, id=task)


async def lock(tx: Transaction, task: str) -> Any | None:
    """One task, locked until the commit."""
    return await tx.first(LOCK, id=task)


async def active_of(tx: Transaction, report: str) -> Any | None:
    """The task that works on a report, locked until the commit."""
    return await tx.first(ACTIVE_OF, report=report)


async def page(tx: Transaction, filters: Filters, page: Page) -> Sequence[Any]:
    """A page of tasks, newest first."""
    (after,) = page.after or (LAST,)
    rest = {"plugin": filters.plugin, "worker": filters.worker, "after": after, "limit": page.limit}
    if filters.report:
        return await tx.all(LIST_OF_REPORT, report=filters.report, state=filters.state, **rest)
    if filters.state:
        return await tx.all(LIST_IN_STATE, state=filters.state, **rest)
    return await tx.all(LIST, **rest)


async def due(tx: Transaction, limit: int) -> int:
    """Lets tasks whose time to try again has come wait for a worker; how many."""
    return int(await tx.value(DUE, now=tx.now, limit=limit))


async def reap(tx: Transaction, *, most: int, limit: int) -> Sequence[Any]:
    """Takes back tasks whose lease was lost; they wait again, or failed when it was once too often."""
    values = {"outcome": "LEASE_LOST", "actor": "queue", "reason": "the lease was lost: no word from its worker"}
    return await tx.all(REAP, now=tx.now, most=most, limit=limit, **values)


async def reset(tx: Transaction, stuck: timedelta, *, actor: str, reason: str, most: int, limit: int) -> Sequence[Any]:
    """Takes back tasks that were claimed longer ago than `stuck`."""
    values = {"outcome": "RESET", "actor": actor, "reason": reason}
    return await tx.all(RESET, now=tx.now, before=tx.now - stuck, most=most, limit=limit, **values)


async def revoke(tx: Transaction, strategy: str, *, actor: str, reason: str, most: int, limit: int) -> Sequence[Any]:
    """Takes back the tasks that are worked on with a strategy."""
    values = {"outcome": "REVOKED", "actor": actor, "reason": reason}
    return await tx.all(REVOKE, now=tx.now, strategy=strategy, most=most, limit=limit, **values)


async def save(tx: Transaction, task: str, values: Mapping[str, Any]) -> None:
    """Writes what an operator made of a task; its token rises, so no lease on it is worth anything."""
    await tx.run(SAVE, id=task, now=tx.now, **values)


async def clean_up(tx: Transaction, before: datetime, newest: str, limit: int) -> int:
    """Deletes tasks that ended before a moment; `newest` is the lowest id made since."""
    return int(await tx.value(CLEAN_UP, before=before, newest=newest, limit=limit))
