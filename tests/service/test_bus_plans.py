"""The relay and the sweep of a consumer find what waits by index, however many weeks of facts there are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.local.testing import BackingServices, Servers
from libs.common.bus import connection, consumer, dead_letters
from libs.common.database import numbered
from libs.common.names import new_id
from libs.common.runtime import process_metrics

WEEKS, ROWS = 5, 40_000
NOW = datetime.now(UTC)
EVENT = new_id(NOW)
FILL = """
INSERT INTO bus.facts
SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM time) * 1000 AS bigint)), 12, '0') || '7' || substr(digest, 1, 3)
            || '8' || substr(digest, 4, 15) AS uuid),
       time, 'ingest', 'incident_opened', 'p' || n % 500, 'm' || n % 50, '', 'ingest', 'a test', '', '', '',
       CASE WHEN n > 10 THEN time END
FROM (SELECT n, md5(CAST(n AS text)) AS digest, now() - n * interval '5 weeks' / 40000 AS time
      FROM generate_series(1, 40000) n) s
"""
SEED = (
    f"SELECT bus.ensure_partitions(now() - interval '{WEEKS} weeks', now())",
    FILL,
    "INSERT INTO bus.inbox SELECT 'decider', id, time FROM bus.facts WHERE publish_time IS NOT NULL",
    "INSERT INTO bus.inbox SELECT 'ops', id, time FROM bus.facts",
    "INSERT INTO bus.consumer_watermarks SELECT 'decider', now() - interval '1 hour'",
    "ANALYZE bus.facts, bus.inbox, bus.consumer_watermarks, bus.delivery_failures, bus.dead_letters",
)
VALUES = {
    "source": "ingest", "before": NOW, "batch": 200, "most": 10_000, "consumer": "decider",
    "facts": ["incident_opened"], "now": NOW, "ids": [EVENT], "event": EVENT, "limit": 50,
}  # fmt: skip
STATEMENTS = {
    "relay": (connection.UNPUBLISHED, "source_time_idx"),
    "published": (connection.PUBLISHED, "facts_.*pkey"),
    "sweep": (consumer.MISSED, "_time_idx"),
    "redriven": (consumer.REDRIVEN, "pkey"),
    "inbox": (consumer.RECEIVE, ""),
    "handled": (consumer.HANDLED, "inbox_.*pkey"),
    "outbox metric": (process_metrics.OUTBOX, "source_time_idx"),
    "failures": (dead_letters.DELETE_FAILURES, ""),
}
LARGE = re.compile(r"Seq Scan on (?:facts|inbox)_")


@pytest.fixture(scope="module")
async def filled(servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    backing = await BackingServices.make(servers)
    owner = await asyncpg.connect(backing.url(), timeout=10, command_timeout=100)
    try:
        for statement in SEED:
            await owner.execute(statement)
        yield owner
    finally:
        await owner.close()
        await backing.discard()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_waits_is_found_by_index(filled: asyncpg.Connection, name: str, mode: str) -> None:
    statement, index = STATEMENTS[name]
    sql, names = numbered(statement)
    await filled.execute(f"SET plan_cache_mode = {mode}")
    async with filled.transaction():
        rows = await filled.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *[VALUES[one] for one in names])
    plan = "\n".join(row[0] for row in rows)
    # A week that is empty costs nothing either way.
    scans = [line for line in plan.splitlines() if LARGE.search(line) and "cost=0.00..0.00" not in line]
    assert not scans, plan
    assert re.search(index, plan), plan


async def test_a_sweep_reads_nothing_older_than_its_watermark(filled: asyncpg.Connection) -> None:
    sql, names = numbered(consumer.MISSED)
    async with filled.transaction():
        rows = await filled.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *[VALUES[one] for one in names])
    read = sum(int(number) for row in rows for number in re.findall(r"on facts_\d+.*actual rows=(\d+)", row[0]))
    assert 10 <= read < 2 * ROWS * timedelta(hours=1) / timedelta(weeks=WEEKS) + 10, "\n".join(row[0] for row in rows)
