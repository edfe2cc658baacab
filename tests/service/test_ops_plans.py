"""The timeline, the overview, figures and stories go by index, however many weeks of facts there are.

100,000 rows of the timeline stand for a million: a plan by index is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Servers
from libs.common.clock import SystemClock
from libs.common.database import Database, numbered
from services.ops.store import kpis, overview, projections, spans, stories, timeline
from services.ops.timeline import TimelineFilter

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
# A UUIDv7 of the time in its row.
EVENT_ID = """
CAST(lpad(to_hex(CAST(extract(epoch FROM time) * 1000 AS bigint)), 12, '0') || '7' || substr(digest, 1, 3)
     || '8' || substr(digest, 4, 15) AS uuid)
"""
SEED = (
    "SELECT ops.ensure_partitions(NOW - interval '5 weeks', NOW)",
    """
    INSERT INTO ops.incidents (incident, plugin, merchant, package, release, type, severity, evidence, rounds,
        first_fact_time, first_bad_beat_time, open_time, mitigate_time, healed_by, resolution, manual)
    SELECT 'i' || lpad(CAST(i AS text), 9, '0'), 'p' || i % 5000, 'm' || i % 50, 'relay', '1.2.0', 'error_spike',
        1 + i % 4, 'e', 1, at, at - interval '1 second', at,
        CASE WHEN i % 200 > 0 THEN at + interval '9 seconds' END, 'a', '', false
    FROM (SELECT i, NOW - i * interval '1 minute' AS at
          FROM generate_series(1, 20000) i) s
    """,
    """
    INSERT INTO ops.attempts (attempt, incident, decision, plugin, merchant, action, from_release, to_release,
        by_operator, create_time, state, state_time, state_rank, held_by, reason)
    SELECT 'a' || incident, incident, 'd' || incident, plugin, merchant, 'patch', '1', '2', false, open_time,
        CASE WHEN end_time IS NULL THEN 'probation' ELSE 'success' END, coalesce(end_time, open_time), 1, '', ''
    FROM ops.incidents
    """,
    """
    INSERT INTO ops.decisions (decision, incident, merchant, create_time, action, origin, confidence, decile)
    SELECT decision, incident, merchant, create_time, 'patch', 'playbook', 0.87, 8 FROM ops.attempts
    """,
    """
    INSERT INTO ops.attention (kind, subject, active, time, severity, line, command, incident, plugin, merchant)
    SELECT 'incident', incident, end_time IS NULL, open_time, severity, 'l', 'c', incident, plugin, merchant
    FROM ops.incidents
    """,
    """
    INSERT INTO ops.timeline (event_id, position, time, fact, plugin, merchant, incident, trace_id, payload)
    SELECT EVENT_ID, 100001 - n, time, 'attempt_staged', 'p' || n % 5000, 'm' || n % 50,
        'i' || lpad(CAST(1 + n % 20000 AS text), 9, '0'), '', ''
    FROM (SELECT n, md5(CAST(n AS text)) AS digest, NOW - n * interval '5 weeks' / 100000 AS time
          FROM generate_series(1, 100000) n) s
    """,
    """
    INSERT INTO ops.spans
    SELECT md5(CAST(n AS text)), substr(md5(CAST(n AS text)), 1, 16), '', '', 'ingest', 's', time, time, '', '{}',
        CASE WHEN n % 50 = 0 THEN ARRAY[md5(CAST(n - 1 AS text))] ELSE '{}' END, time
    FROM (SELECT n, NOW - n * interval '5 weeks' / 50000 AS time FROM generate_series(1, 50000) n) s
    """,
    "ANALYZE ops.incidents, ops.attempts, ops.decisions, ops.attention, ops.timeline, ops.spans",
)
LARGE = re.compile(
    r"Seq Scan on (?:ops\.)?(?:timeline|spans|incidents|attempts|decisions|attention)(?:_(?P<week>\d+))?\b"
)
PAGE = f"{stories.PAGE} ORDER BY i.start_time DESC, i.incident DESC LIMIT :limit"
ARGUMENTS: dict[str, Any] = {
    "start": NOW - timedelta(hours=1), "end": NOW, "since": NOW - timedelta(hours=1), "now": NOW, "merchant": "",
    "limit": 20, "before": NOW, "under": "", "incidents": ["i000000001"], "step": timedelta(hours=1),
    "incident": "i000000001", "after": 99_000, "until": 99_500, "batch": 200, "traces": ["0" * 32],
}  # fmt: skip
HOT = {
    "active incidents": (overview.ACTIVE, "incidents_active"),
    "active by severity": (overview.COUNTS, "incidents_active"),
    "attention": (overview.ATTENTION, "attention_active"),
    "recent": (overview.RECENT, "incidents_"),
    "recent attempts": (overview.RECENT_ATTEMPTS, "attempts_end"),
    "stories": (PAGE, "incidents_start"),
    "facts of stories": (stories.FACTS, "timeline_.*_incident_position_idx"),
    "time to detect": (kpis.DETECTED, "incidents_start"),
    "time to repair": (kpis.REPAIRED, "incidents_end"),
    "outcomes": (kpis.OUTCOMES, "attempts_end"),
    "calibration": (kpis.CALIBRATION, "decisions_create"),
    "points": (kpis.OPENED, "incidents_start"),
    "unplaced": (timeline.UNPLACED, "timeline_.*_time_idx"),
    "last position": (timeline.LAST, "timeline_.*_position_idx"),
    "traces": (timeline.TRACES, "timeline_.*_incident_position_idx"),
    "backfill": (projections.UNPROJECTED, "timeline_.*_position_idx"),
    "spans of a story": (spans.STORY, "spans_.*_pkey"),
    "old spans": (spans.DELETE, "spans_.*_receive_time_idx"),
}
# What is placed while the plan is made.
PLACED = "UPDATE ops.timeline SET position = NULL WHERE position > 99995"


@pytest.fixture(scope="module")
async def filled(servers: Servers) -> AsyncIterator[Database]:
    backing = await BackingServices.make(servers)
    database = Database(backing.url(), clock=SystemClock(), session={"statement_timeout": "60000"})
    try:
        for statement in SEED:
            async with database.engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                await raw.execute(
                    statement.replace("EVENT_ID", EVENT_ID).replace("NOW", f"timestamptz '{NOW.isoformat()}'"),
                    timeout=60,
                )
        yield database
    finally:
        await database.close()
        await backing.discard()


async def plan(database: Database, sql: str, values: dict[str, Any]) -> str:
    statement, names = numbered(sql)
    async with database.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        rows = await raw.fetch(f"EXPLAIN {statement}", *[values[name] for name in names])
    return "\n".join(row[0] for row in rows)


def check(found: str, index: str) -> None:
    # Weeks after those that were filled are empty, and reading nothing needs no index.
    scans = [scan for scan in LARGE.finditer(found) if (scan["week"] or "") <= f"{NOW:%Y%m%d}"]
    assert not scans, found
    assert re.search(index, found), found


@pytest.mark.parametrize("name", HOT)
async def test_what_people_look_at_goes_by_index(filled: Database, name: str) -> None:
    sql, index = HOT[name]
    check(await plan(filled, sql, ARGUMENTS), index)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TimelineFilter(), "_position_idx"),
        (TimelineFilter(plugin="p17"), "_plugin_position_idx"),
        (TimelineFilter(incident="i000000001"), "_incident_position_idx"),
    ],
    ids=["everything", "of a plugin", "of an incident"],
)
async def test_pages_and_watchers_of_the_timeline_go_by_position(
    filled: Database, wanted: TimelineFilter, index: str
) -> None:
    values, where = timeline._conditions(wanted)
    newest = f"{timeline.PAGE} WHERE t.position < :before {where} ORDER BY t.position DESC LIMIT :limit"
    following = (
        f"{timeline.PAGE} WHERE t.position > :after AND t.position <= :last {where} ORDER BY t.position LIMIT :limit"
    )
    bounds = {"before": 50_000, "after": 99_000, "last": 99_500, "limit": 20}
    check(await plan(filled, newest, values | bounds), index)
    check(await plan(filled, following, values | bounds), "_position_idx")


async def test_placing_reads_what_has_no_position_and_the_last_that_has_one(filled: Database) -> None:
    async def work(tx: Any) -> str:
        await tx.run(PLACED)
        rows = await tx.all(f"EXPLAIN {timeline.PLACE}", batch=timeline.BATCH)
        return "\n".join(row[0] for row in rows)

    found = await filled.transaction(work)
    check(found, "_position_idx")
    assert re.search("_time_idx", found), found
