"""A test that gets a database another one used cannot tell."""

from __future__ import annotations

import asyncpg
import pytest

from deploy.local.database_pool import DatabasePool
from deploy.local.testing import Servers

EVERYTHING = """
SELECT table_schema || '.' || table_name AS name FROM information_schema.tables
WHERE table_schema IN ('bus', 'ingest', 'decider', 'patcher', 'queue', 'ops') AND table_type = 'BASE TABLE' ORDER BY 1
"""
NUMBERS = "SELECT schemaname || '.' || sequencename AS name, last_value FROM pg_sequences ORDER BY 1"
USED = """
INSERT INTO bus.inbox (consumer, event_id, handle_time)
VALUES ('ingest', '0197f3a2-0000-7000-8000-000000000000', now());
UPDATE patcher.policy SET version = version + 1;
DELETE FROM ops.labels
"""


async def connect(servers: Servers, name: str) -> asyncpg.Connection:
    return await asyncpg.connect(servers.postgres_url(database=name), timeout=10, command_timeout=30)


async def seen(servers: Servers, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, int | None]]]:
    connection = await connect(servers, name)
    try:
        tables = [row["name"] for row in await connection.fetch(EVERYTHING)]
        rows = [(table, str(await connection.fetch(f"SELECT * FROM {table} ORDER BY 1"))) for table in tables]  # noqa: S608
        return rows, [tuple(row) for row in await connection.fetch(NUMBERS)]
    finally:
        await connection.close()


async def test_what_one_test_wrote_the_next_does_not_see(servers: Servers) -> None:
    pool = DatabasePool(servers)
    name = await pool.acquire("t_spare_rows")
    before = await seen(servers, name)
    connection = await connect(servers, name)
    await connection.execute(USED)
    assert await seen(servers, name) != before
    await pool.release(name)
    assert connection.is_closed() or await _gone(connection), "who was connected is not any more"
    assert await pool.acquire("t_another") == name
    assert await seen(servers, name) == before
    await servers.drop_database(name)


async def _gone(connection: asyncpg.Connection) -> bool:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    return True


async def test_weeks_that_a_service_made_are_dropped_and_the_database_is_not(servers: Servers) -> None:
    pool = DatabasePool(servers)
    name = await pool.acquire("t_spare_weeks")
    before = await seen(servers, name)
    connection = await connect(servers, name)
    assert await connection.fetchval("SELECT bus.ensure_partitions('2031-03-03', '2031-03-20')") >= 6
    await connection.execute(USED.partition(";")[0].replace("0197f3a2", "01c1e0a5"))
    await pool.release(name)
    assert await pool.acquire("t_another") == name
    assert await seen(servers, name) == before
    await servers.drop_database(name)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE ops.left_behind (id integer)",
        "ALTER TABLE bus.facts ADD COLUMN more text",
        "DROP FUNCTION patcher.authorize_apply CASCADE",
        "REVOKE SELECT ON bus.facts FROM prunella_ops",
        "CREATE FUNCTION ops.more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "DROP INDEX ops.timeline_fact",
    ],
)
async def test_a_database_that_was_rebuilt_is_not_given_to_anybody(servers: Servers, change: str) -> None:
    pool = DatabasePool(servers)
    name = await pool.acquire("t_spare_shape")
    connection = await connect(servers, name)
    await connection.execute(change)
    await connection.close()
    await pool.release(name)
    assert pool.idle == []
