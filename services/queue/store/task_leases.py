"""Leases of tasks, each step in one statement: claim, extend, complete. Everything is fenced by the token.

Rule: rows are locked with SKIP LOCKED before they are touched, so that any number of workers race without waiting; a
claim reads only tasks of the tool sets it can do. The counts and the history of a change are written in its statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from libs.common.database import Transaction
from services.queue.leases import INCONCLUSIVE
from services.queue.store.columns import columns
from services.queue.store.history import COLUMNS as HISTORY

_WAITING = "toolset = {toolset} AND state = 'pending' ORDER BY rank, id LIMIT {limit}"
_LEASE = """
leased AS (
    UPDATE queue.tasks t SET state = 'processing', token = t.token + 1, worker = :worker, lease_expire_time = :until,
        claim_time = :now, update_time = :now
    WHERE t.id = ANY(ARRAY(SELECT id FROM chosen))
    RETURNING CAST(t.id AS text) AS id, CAST(t.report AS text) AS report, t.plugin, t.merchant, t.strategy, t.toolset,
        t.priority, t.attempts, t.crashes, t.max_attempts, t.token, t.estimated_seconds, t.run_time, t.create_time,
        t.rank, t.traceparent),
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'task', m.state, m.sign * count(*), m.sign * sum(priority), 0
    FROM leased, (VALUES ('pending', -1), ('processing', 1)) AS m (state, sign) GROUP BY m.state, m.sign)
SELECT id, report, plugin, merchant, strategy, toolset, priority, attempts, crashes, max_attempts, token,
    estimated_seconds, run_time, create_time, traceparent
FROM leased ORDER BY rank, id
"""
CLAIM = f"""
WITH chosen AS MATERIALIZED (
    SELECT id FROM queue.tasks WHERE {_WAITING.format(toolset=":toolset", limit=":limit")} FOR UPDATE SKIP LOCKED),
{_LEASE}"""
# First how many to take of each set, without a lock; then exactly so many, past whatever others hold.
CLAIM_AMONG = f"""
WITH best AS MATERIALIZED (
    SELECT t.toolset FROM unnest(CAST(:toolsets AS integer[])) AS s (toolset)
    CROSS JOIN LATERAL (
        SELECT toolset, rank, id FROM queue.tasks
        WHERE {_WAITING.format(toolset="s.toolset", limit=":limit")}) t
    ORDER BY t.rank, t.id LIMIT :limit),
shares AS MATERIALIZED (SELECT toolset, count(*) AS number FROM best GROUP BY toolset),
chosen AS MATERIALIZED (
    SELECT t.id FROM shares s CROSS JOIN LATERAL (
        SELECT id FROM queue.tasks WHERE {_WAITING.format(toolset="s.toolset", limit="s.number")}
        FOR UPDATE SKIP LOCKED) t),
{_LEASE}"""
EXTEND = """
UPDATE queue.tasks SET lease_expire_time = greatest(lease_expire_time, :until), update_time = :now
WHERE id = CAST(:id AS uuid) AND token = :token AND state = 'processing' AND lease_expire_time >= :now
RETURNING lease_expire_time
"""
# Lists come as one text each: the driver looks at every element of an array again and again.
_COLUMNS = """CAST(string_to_array(:ids, ',') AS uuid[]), CAST(string_to_array(:tokens, ',') AS bigint[]),
        string_to_array(:methods, E'\\x1e'), string_to_array(:details, E'\\x1e'), string_to_array(:tools, E'\\x1e'),
        CAST(string_to_array(:seconds, ',') AS real[])"""
SEPARATOR = "\x1e"
_GIVEN = f"""
given AS MATERIALIZED (
    SELECT * FROM unnest({_COLUMNS}, CAST(:state AS text[]),
        CAST(:attempts AS integer[]), CAST(:run_time AS timestamptz[]), CAST(:outcome AS text[]),
        CAST(:reason AS text[]))
        AS g (id, token, method, details, tools, seconds, state, attempts, run_time, outcome, reason))"""
# From the updated reports alone: joined to the ended tasks again, a thousand would be compared with a thousand.
_NUMBERED = f"""RETURNING r.id AS report_id, r.history_count, r.merchant, e.id, e.strategy, e.worker, e.method, e.state,
        e.outcome, e.details, e.tools, e.seconds),
history AS (
    INSERT INTO queue.history ({HISTORY})
    SELECT queue.uuid_v7(:now), report_id, history_count, merchant, id, strategy, worker, method, state = 'completed',
        outcome, details, string_to_array(tools, E'\\n'), seconds, :now, :actor
    FROM numbered)"""
# What the facts of a completion hold.
ENDED = """CAST(id AS text) AS id, CAST(report AS text) AS report, plugin, merchant, token, worker, method, state,
    attempts, claim_time, traceparent"""
FAILED = f"{ENDED}, outcome, strategy, run_time, reason"
_DELTAS = """
deltas AS (
    INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
    SELECT 'task', 'processing', -count(*), -sum(priority), 0 FROM ended HAVING count(*) > 0
    UNION ALL
    SELECT 'task', state, count(*), sum(priority),
        sum(CASE WHEN state = 'completed' THEN extract(epoch FROM CAST(:now AS timestamptz) - create_time) ELSE 0 END)
    FROM ended GROUP BY state{more})
SELECT {columns} FROM ended
"""
_ENDED = """
ended AS (
    UPDATE queue.tasks t SET state = g.state, attempts = g.attempts, run_time = coalesce(g.run_time, t.run_time),
        lease_expire_time = NULL, update_time = :now,
        end_time = CASE WHEN g.state <> 'retrying' THEN CAST(:now AS timestamptz) END,
        reason = g.reason
    FROM given g WHERE t.id = g.id AND t.token = g.token AND t.lease_expire_time IS NOT NULL
    RETURNING t.*, coalesce(g.method, '') AS method, g.details, coalesce(g.tools, '') AS tools, g.seconds, g.outcome)"""
# A task has a lease exactly while it is in processing (a check of the table). Asked for by its state, the planner would
# compare all that are in processing with all that were given.
# The fast path of a success: a hundred completions are one statement, and no other.
COMPLETE = f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest({_COLUMNS})
        AS g (id, token, method, details, tools, seconds)),
ended AS (
    UPDATE queue.tasks t SET state = 'completed', lease_expire_time = NULL, update_time = :now, end_time = :now
    FROM given g WHERE t.id = g.id AND t.token = g.token AND t.lease_expire_time IS NOT NULL
    RETURNING t.*, coalesce(g.method, '') AS method, g.details, coalesce(g.tools, '') AS tools, g.seconds,
        'COMPLETED' AS outcome),
numbered AS (
    UPDATE queue.reports r SET state = 'resolved_pending', watch_end_time = :watch_end_time, resolve_time = :now,
        resolved_by = e.worker, resolution_method = e.method, history_count = r.history_count + 1,
        reason = 'a worker''s check passed; watched for a recurrence'
    FROM ended e WHERE r.id = e.report
    {_NUMBERED},
watches AS (
    INSERT INTO queue.watches (id, merchant, end_time, reports)
    SELECT queue.uuid_v7(:now), merchant, :watch_end_time, array_agg(report) FROM ended GROUP BY merchant),
{
    _DELTAS.strip().format(
        columns=ENDED,
        more='''
    UNION ALL
    SELECT 'report', m.state, m.sign * count(*), 0, 0
    FROM ended, (VALUES ('in_progress', -1), ('resolved_pending', 1)) AS m (state, sign) GROUP BY m.state, m.sign''',
    )
}"""
FAIL = f"""
WITH {_GIVEN.strip()},
{_ENDED.strip()},
numbered AS (
    UPDATE queue.reports r SET history_count = r.history_count + 1,
        tried_strategies = CASE WHEN e.state = 'failed' AND e.outcome <> ALL(CAST(:inconclusive AS text[]))
            THEN array_append(r.tried_strategies, e.strategy) ELSE r.tried_strategies END
    FROM ended e WHERE r.id = e.report
    {_NUMBERED},
{_DELTAS.strip().format(more="", columns=FAILED)}"""
LOCK = """
SELECT id, report, token, state, attempts, max_attempts, strategy, worker FROM queue.tasks
WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
"""
TOKENS = "SELECT id, token, state FROM queue.tasks WHERE id = ANY(CAST(:ids AS uuid[]))"


class Completion(NamedTuple):
    """The end of one try, as a worker reports it; no text in it holds a control character."""

    task: str
    token: int
    success: bool
    method: str
    details: str
    tools: tuple[str, ...]
    seconds: float
    failure: str
    permanent: bool


@dataclass(frozen=True)
class JudgedFailure:
    """A completion that was judged: what becomes of its task."""

    completion: Completion
    state: str
    attempts: int
    run_time: datetime | None
    outcome: str
    reason: str


async def claim(tx: Transaction, toolsets: Sequence[int], *, worker: str, until: datetime, limit: int) -> Sequence[Any]:
    """Leases the next tasks of some tool sets, most urgent first."""
    values: dict[str, Any] = {"worker": worker, "until": until, "limit": limit, "now": tx.now}
    if len(toolsets) == 1:
        return await tx.all(CLAIM, toolset=toolsets[0], **values)
    return await tx.all(CLAIM_AMONG, toolsets=list(toolsets), **values)


async def extend(tx: Transaction, task: str, token: int, until: datetime) -> datetime | None:
    """Prolongs a lease that is held; None when it is not."""
    found: datetime | None = await tx.value(EXTEND, id=task, token=token, until=until, now=tx.now)
    return found


async def complete(
    tx: Transaction, completions: Sequence[Completion], *, actor: str, watch_end_time: datetime
) -> Sequence[Any]:
    """Ends tries that succeeded; a row for each that was recorded."""
    return await tx.all(
        COMPLETE,
        now=tx.now,
        actor=actor,
        watch_end_time=watch_end_time,
        **_columns(completions),
    )


async def fail(tx: Transaction, failures: Sequence[JudgedFailure], *, actor: str) -> Sequence[Any]:
    """Ends tries that failed; a row for each that was recorded."""
    return await tx.all(
        FAIL,
        now=tx.now,
        actor=actor,
        inconclusive=list(INCONCLUSIVE),
        **columns(failures, "state attempts run_time outcome reason"),
        **_columns([one.completion for one in failures]),
    )


async def lock(tx: Transaction, tasks: Sequence[str]) -> dict[str, Any]:
    """Tasks by id, locked until the commit."""
    return {str(row.id): row for row in await tx.all(LOCK, ids=list(tasks))}


async def tokens(tx: Transaction, tasks: Sequence[str]) -> dict[str, Any]:
    """Token and state of tasks, by id."""
    return {str(row.id): row for row in await tx.all(TOKENS, ids=list(tasks))}


def _columns(completions: Sequence[Completion]) -> dict[str, str]:
    return {
        "ids": ",".join([one.task for one in completions]),
        "tokens": ",".join([str(one.token) for one in completions]),
        "methods": SEPARATOR.join([one.method for one in completions]),
        "details": SEPARATOR.join([one.details for one in completions]),
        "tools": SEPARATOR.join(["\n".join(one.tools) for one in completions]),
        "seconds": ",".join([str(one.seconds) for one in completions]),
    }
