"""Rows for the measurements of the queue: reports in progress, each with its task that waits, written by SQL.

What is measured is the queue at work, not how the rows came; they are as triage leaves them: contents, counts, tool
sets and a trace for each. Needs the owner's connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg

TOOL = "bench.look"
PLUGINS = 50_000
# UUIDs of version 7, a millisecond apart, so that they lie in their indexes as real ones do.
_ID = """CAST(lpad(to_hex({start} + n), 12, '0') || '7' || substr(md5({salt} || n), 1, 3) || '8'
    || substr(md5({salt} || n), 4, 15) AS uuid)"""
REPORT, TASK = _ID.format(start="$3::bigint", salt="'report'"), _ID.format(start="$3::bigint", salt="'task'")
TRACE = "'00-' || md5('trace' || n) || '-' || substr(md5('span' || n), 1, 16) || '-01'"
REPORTS = f"""
INSERT INTO queue.reports (id, plugin, merchant, package, release, label, fingerprint, state, type, severity,
    reported_severity, source, counter, counter_value, occurrences, first_seen_time, last_seen_time, open_time,
    create_time, task, strategy, traceparent)
SELECT {REPORT}, 'bench-' || n % {PLUGINS}, 'bench', 'bench', '1.0.0', 'shop', md5('f' || n) || md5('g' || n),
    'in_progress', 'network', 'high', '', 'service', '', 0, 1, at, at, at, at, {TASK}, 'bench', {TRACE}
FROM generate_series($1::bigint, $2::bigint) n,
    LATERAL (SELECT $4::timestamptz + n * interval '1 millisecond') AS moment (at)
"""
DETAILS = f"""
INSERT INTO queue.report_details (report, merchant, type, module, message, stack, context, grouping, triage)
SELECT {REPORT}, 'bench', 'Error', 'cart', 'connection reset by peer ' || n,
    repeat('at frame (cart.js:1)' || E'\\n', 4), '{{}}', '{{connection reset by peer}}', '{{}}'
FROM generate_series($1::bigint, $2::bigint) n
"""
TASKS = f"""
INSERT INTO queue.tasks (id, report, plugin, merchant, strategy, toolset, state, priority, rank, max_attempts,
    estimated_seconds, run_time, create_time, update_time, traceparent)
SELECT {TASK}, {REPORT}, 'bench-' || n % {PLUGINS}, 'bench', 'bench', ($5::integer[])[1 + n % cardinality($5)],
    'pending', 1 + n % 10, at - (1 + n % 10) * interval '10 minutes', 3, 60, at, at, at, {TRACE}
FROM generate_series($1::bigint, $2::bigint) n,
    LATERAL (SELECT $4::timestamptz + n * interval '1 millisecond') AS moment (at)
"""
COUNTED = """
INSERT INTO queue.state_count_deltas (kind, state, count, priority_sum, seconds_sum)
VALUES ('report', 'in_progress', $1::bigint, 0, 0),
    ('task', 'pending', $1::bigint, (SELECT sum(priority) FROM queue.tasks), 0)
"""
EMPTY = """
TRUNCATE queue.tasks, queue.report_details, queue.reports, queue.history, queue.watches, queue.state_counts,
    queue.state_count_deltas, queue.requests, queue.toolsets
"""
CHUNK = 100_000
TABLES = ["queue.reports", "queue.report_details", "queue.tasks"]
# A million rows go in several times faster when the indexes are made afterwards.
CONSTRAINTS = """
SELECT conrelid::regclass::text AS of, conname AS name, pg_get_constraintdef(oid) AS rule FROM pg_constraint
WHERE conrelid = ANY($1::text[]::regclass[]) AND contype IN ('p', 'u', 'f') ORDER BY contype = 'f', oid
"""
INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS rule FROM pg_index
WHERE indrelid = ANY($1::text[]::regclass[]) AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)
"""


def tools(sets: int) -> list[str]:
    """A tool for each tool set."""
    return [f"{TOOL}_{number}" for number in range(sets)]


async def fill(url: str, count: int, *, sets: int = 1, now: datetime | None = None) -> None:
    """Empties the queue and fills it with so many tasks that wait, in so many tool sets of one tool each."""
    began = (now or datetime.now(UTC)) - timedelta(days=1)
    start = int(began.timestamp() * 1000)
    connection = await asyncpg.connect(url, command_timeout=300)
    try:
        await connection.execute(EMPTY)
        rows = [
            await connection.fetchval("INSERT INTO queue.toolsets (tools) VALUES ($1) RETURNING id", [tool])
            for tool in tools(sets)
        ]
        async with connection.transaction(), _bare(connection):
            for first in range(1, count + 1, CHUNK):
                last = min(first + CHUNK - 1, count)
                await connection.execute(REPORTS, first, last, start, began)
                await connection.execute(DETAILS, first, last, start)
                await connection.execute(TASKS, first, last, start, began, rows)
        await connection.execute(COUNTED, count)
        for table in (*TABLES, "queue.toolsets"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _bare(connection: asyncpg.Connection) -> AsyncIterator[None]:
    constraints = await connection.fetch(CONSTRAINTS, TABLES)
    indexes = await connection.fetch(INDEXES, TABLES)
    for one in reversed(constraints):
        await connection.execute(f"ALTER TABLE {one['of']} DROP CONSTRAINT {one['name']}")
    for one in indexes:
        await connection.execute(f"DROP INDEX {one['name']}")
    yield
    await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for one in constraints:
        await connection.execute(f"ALTER TABLE {one['of']} ADD CONSTRAINT {one['name']} {one['rule']}")
    for one in indexes:
        await connection.execute(one["rule"])
