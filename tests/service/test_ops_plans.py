"""The overview, figures and stories go by index over a large timeline: nothing looks through all of it.

100,000 rows of the timeline stand for a million: a plan by index is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local.testing import Ground, Servers
from libs.common.clock import SystemClock
from libs.common.database import Database, numbered
from services.ops.store import kpis, overview, stories

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SEED = (
    """
    INSERT INTO ops.incidents (incident, plugin, merchant, package, release, type, severity, evidence, rounds, seen_at,
        first_bad_at, opened_at, mitigated_at, healed_by, resolution, manual)
    SELECT 'i' || lpad(CAST(i AS text), 9, '0'), 'p' || i % 5000, 'm' || i % 50, 'relay', '1.2.0', 'error_spike',
        1 + i % 4, 'e', 1, at, at - interval '1 second', at,
        CASE WHEN i % 200 > 0 THEN at + interval '9 seconds' END, 'a', '', false
    FROM (SELECT i, NOW - i * interval '1 minute' AS at
          FROM generate_series(1, 20000) i) s
    """,
    """
    INSERT INTO ops.attempts (attempt, incident, decision, plugin, merchant, action, from_release, to_release,
        by_person, created_at, state, state_at, state_rank, held_by, reason)
    SELECT 'a' || incident, incident, 'd' || incident, plugin, merchant, 'patch', '1', '2', false, opened_at,
        CASE WHEN ended_at IS NULL THEN 'probation' ELSE 'success' END, coalesce(ended_at, opened_at), 1, '', ''
    FROM ops.incidents
    """,
    """
    INSERT INTO ops.decisions (decision, incident, merchant, made_at, action, origin, confidence, decile)
    SELECT decision, incident, merchant, created_at, 'patch', 'playbook', 0.87, 8 FROM ops.attempts
    """,
    """
    INSERT INTO ops.needs (kind, subject, wanted, at, severity, line, command, incident, plugin, merchant)
    SELECT 'incident', incident, ended_at IS NULL, opened_at, severity, 'l', 'c', incident, plugin, merchant
    FROM ops.incidents
    """,
    """
    INSERT INTO ops.timeline (event_id, position, time, fact, plugin, incident, trace_id, payload)
    SELECT gen_random_uuid(), n, NOW - n * interval '6 seconds', 'attempt_staged',
        'p' || n % 5000, 'i' || lpad(CAST(1 + n % 20000 AS text), 9, '0'), '', ''
    FROM generate_series(1, 100000) n
    """,
    *(f"ANALYZE ops.{table}" for table in ("incidents", "attempts", "decisions", "needs", "timeline")),
)
LARGE = re.compile(r"Seq Scan on (?:ops\.)?(?:timeline|incidents|attempts|decisions|needs)\b")
PAGE = f"{stories.PAGE} ORDER BY i.began_at DESC, i.incident DESC LIMIT :limit"
ARGUMENTS: dict[str, Any] = {
    "start": NOW - timedelta(hours=1), "end": NOW, "since": NOW - timedelta(hours=1), "now": NOW, "merchant": "",
    "limit": 20, "before": NOW, "under": "", "incidents": ["i000000001"], "step": timedelta(hours=1),
}  # fmt: skip
HOT = {
    "wrong": (overview.WRONG, "incidents_active"),
    "wrong by severity": (overview.COUNTS, "incidents_active"),
    "needs": (overview.NEEDS, "needs_wanted"),
    "done": (overview.DONE, "incidents_"),
    "tried": (overview.TRIED, "attempts_ended"),
    "stories": (PAGE, "incidents_began"),
    "facts of stories": (stories.FACTS, "timeline_incident"),
    "time to detect": (kpis.DETECTED, "incidents_began"),
    "time to repair": (kpis.REPAIRED, "incidents_ended"),
    "outcomes": (kpis.OUTCOMES, "attempts_ended"),
    "confidence": (kpis.CONFIDENCE, "decisions_made"),
    "points": (kpis.OPENINGS, "incidents_began"),
}


@pytest.fixture(scope="module")
async def filled(servers: Servers) -> AsyncIterator[Database]:
    ground = await Ground.make(servers)
    database = Database(ground.url(), clock=SystemClock(), session={"statement_timeout": "60000"})
    try:
        for statement in SEED:
            async with database.engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                await raw.execute(statement.replace("NOW", f"timestamptz '{NOW.isoformat()}'"), timeout=60)
        yield database
    finally:
        await database.close()
        await ground.discard()


@pytest.mark.parametrize("name", HOT)
async def test_what_people_look_at_goes_by_index(filled: Database, name: str) -> None:
    statement, index = HOT[name]
    sql, names = numbered(statement)
    async with filled.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        rows = await raw.fetch(f"EXPLAIN {sql}", *[ARGUMENTS[value] for value in names])
    found = "\n".join(row[0] for row in rows)
    assert not LARGE.search(found), found
    assert index in found, found
