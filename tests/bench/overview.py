"""The overview over gRPC with a million rows on the timeline and a hundred thousand plugins.

The plane is real, ingest counts its fleet, and the rows are written as the projections leave them. Figures of a week
and pages of stories are measured beside it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from libs.common import rpc
from prunella.v1 import kpis_pb2, overview_pb2, stories_pb2
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from tests.bench.backing import percentile, plane, seed

ROWS, PLUGINS, INCIDENTS = 1_000_000, 100_000, 60_000
TURNS = 200
TARGETS = {"overview_p95_ms": 100.0}
SEED = (
    # Two weeks of incidents; 200 of them are not over, and 50 of those are with people.
    """
    INSERT INTO ops.incidents (incident, plugin, merchant, package, release, type, severity, evidence, rounds,
        first_fact_time, first_bad_beat_time, open_time, mitigate_time, escalate_time, healed_by, resolution, manual)
    SELECT 'i' || lpad(CAST(i AS text), 9, '0'), 'p' || i, 'm' || i % 500, 'relay', '1.2.0', 'webhook_fail_rate',
        1 + i % 4, 'webhook_fail_rate 0.60 > 0.30 over 25 attempts', 1, at, at - interval '1 second', at,
        CASE WHEN i % 300 > 0 THEN at + interval '9 seconds' END, CASE WHEN i % 1200 = 0 THEN at END, 'a', '', false
    FROM (SELECT i, now() - i * interval '20 seconds' AS at FROM generate_series(1, $1) i) s
    """,
    """
    INSERT INTO ops.attempts (attempt, incident, decision, plugin, merchant, action, from_release, to_release,
        by_operator, create_time, apply_time, state, state_time, state_rank, held_by, reason)
    SELECT 'a' || incident, incident, 'd' || incident, plugin, merchant, 'patch', '1.2.0', '1.2.3', false, open_time,
        open_time, CASE WHEN end_time IS NULL THEN 'probation' ELSE 'success' END, coalesce(end_time, open_time), 1,
        '', ''
    FROM ops.incidents WHERE $1 > 0
    """,
    """
    INSERT INTO ops.decisions (decision, incident, merchant, create_time, action, origin, confidence, decile)
    SELECT decision, incident, merchant, create_time, 'patch', 'playbook', 0.87, 8 FROM ops.attempts WHERE $1 > 0
    """,
    """
    INSERT INTO ops.attention (kind, subject, active, time, severity, line, command, incident, plugin, merchant)
    SELECT 'incident', incident, end_time IS NULL, escalate_time, severity, '{plugin}: is yours now', 'prunella …',
        incident, plugin, merchant
    FROM ops.incidents WHERE escalate_time IS NOT NULL AND $1 > 0
    """,
    "INSERT INTO ops.labels SELECT 'p' || i, 'm', 'shop-' || i FROM generate_series(1, $1) i",
)
TIMELINE = """
INSERT INTO ops.timeline (event_id, position, time, fact, plugin, merchant, incident, trace_id, payload)
SELECT gen_random_uuid(), n, now() - n * interval '1 second', 'attempt_staged', 'p' || 1 + n % $2, 'm',
    'i' || lpad(CAST(1 + n % $2 AS text), 9, '0'), '', $4
FROM generate_series(CAST($1 AS integer), CAST($1 AS integer) + $3 - 1) n
"""
PART = 50_000


async def fill(url: str) -> None:
    """Writes the rows, the timeline in parts."""
    from tests.unit.healing_facts import staged

    connection = await asyncpg.connect(url, command_timeout=300)
    try:
        for statement in SEED:
            await connection.execute(statement, INCIDENTS)
        payload = staged(1).SerializeToString()
        for first in range(1, ROWS + 1, PART):
            await connection.execute(TIMELINE, first, INCIDENTS, PART, payload)
        for table in ("incidents", "attempts", "decisions", "attention", "labels", "timeline"):
            await connection.execute(f"ANALYZE ops.{table}")
    finally:
        await connection.close()


async def timed(ask: Any, turns: int) -> dict[str, float]:
    """Milliseconds of so many calls, one after the other."""
    took = []
    for _ in range(turns):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    return {f"p{share}_ms": round(percentile(took, share / 100), 1) for share in (50, 95, 99)}


async def measure() -> dict[str, object]:
    """Overview, figures of a week and stories, with their targets."""
    async with plane({}, services=("ingest", "queue", "ops")) as running:
        await seed(running.database_url, PLUGINS, package="relay")
        await fill(running.database_url)
        channel = rpc.channel(running.addresses["ops"], caller="operator", key=running.key)
        ops: Any = OpsServiceStub(channel)
        week = kpis_pb2.GetKpisRequest()
        week.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=7))
        try:
            first = await timed(lambda: ops.GetOverview(overview_pb2.GetOverviewRequest(), timeout=30), 1)
            overview = await timed(lambda: ops.GetOverview(overview_pb2.GetOverviewRequest(), timeout=30), TURNS)
            found = await ops.GetOverview(overview_pb2.GetOverviewRequest(), timeout=30)
            kpis = await timed(lambda: ops.GetKpis(week, timeout=30), 10)
            stories = await timed(lambda: ops.ListStories(stories_pb2.ListStoriesRequest(), timeout=30), 20)
        finally:
            await channel.close()
    return {
        "rows": ROWS,
        "plugins": found.fleet.plugins,
        "not_over": sum(found.active_by_severity.values()),
        "needed": sum(found.attention_by_kind.values()),
        "overview": overview,
        "first_overview_ms": first["p50_ms"],
        "kpis_of_a_week": kpis,
        "page_of_stories": stories,
        "targets": TARGETS,
    }
