"""Migrations keep what is stored: each revision is upgraded to, and downgraded from, on a filled database.

Every schema starts at one first revision. From the second on, the database is filled at the revision before, upgraded,
and downgraded again: no row may be lost on the way, and a downgrade leads back to exactly the shape before.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from deploy.local import migrate
from deploy.local.testing import Servers
from libs.common import migration
from libs.common.database_connection import owner_engine
from tests.contract.migration_rows import counts, fill
from tests.contract.plane_wide_tables import PLANE_WIDE

FOLDERS = migrate.folders()
FIRST = "r1"


SHAPE = """
SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                 pg_get_expr(d.adbin, d.adrelid)) AS line
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'v', 'S') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(c.oid)) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind IN ('i', 'I')
UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE n.nspname = :schema AND contype <> 'n'
UNION ALL SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid)) FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = :schema
UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND NOT t.tgisinternal
UNION ALL SELECT concat_ws(' ', 'policy', tablename, policyname, cmd, qual, with_check) FROM pg_policies
WHERE schemaname = :schema
ORDER BY 1
"""
WITHOUT_MERCHANT = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'migrations'
  AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnotnull
                    AND a.attname IN ('merchant', 'merchants'))
"""
Work = Callable[[Connection], Any]


@pytest.fixture
async def empty(servers: Servers) -> AsyncIterator[str]:
    """The owner's address of a database without any table."""
    name = f"t_{secrets.token_hex(5)}"
    admin = await asyncpg.connect(servers.postgres_url(database="postgres"), timeout=10)
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.postgres_url(database=name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def within(url: str, work: Work) -> Any:
    """What `work` returns, in one transaction."""
    engine = owner_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def script_of(directory: Path) -> ScriptDirectory:
    return ScriptDirectory(str(directory), version_locations=[str(directory / "versions")])


def upgrade(connection: Connection, schema: str, script: ScriptDirectory, revision: str) -> None:
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    migration.run(connection, schema, script, lambda present, _: script._upgrade_revs(revision, present))


def downgrade(connection: Connection, schema: str, script: ScriptDirectory, revision: str) -> None:
    migration.run(connection, schema, script, lambda present, _: script._downgrade_revs(revision, present))


def shape(connection: Connection, schema: str) -> list[str]:
    return [row.line for row in connection.execute(text(SHAPE), {"schema": schema})]


def steps(directory: Path) -> Iterator[tuple[str, str]]:
    """Each revision with the one before it, oldest first."""
    for revision in reversed(list(script_of(directory).walk_revisions())):
        if revision.down_revision:
            yield str(revision.down_revision), revision.revision


def check_step(connection: Connection, schema: str, script: ScriptDirectory, before: str, after: str) -> None:
    """Upgrades a filled database by one revision and downgrades it again. Raises whatever goes wrong."""
    upgrade(connection, schema, script, before)
    filled, shaped = fill(connection, schema), shape(connection, schema)
    assert all(filled.values()), f"tables without rows: {filled}"
    upgrade(connection, schema, script, after)
    upgraded = counts(connection, schema)
    lost = {name: number for name, number in filled.items() if upgraded.get(name, number) != number}
    assert not lost, f"{after} changes how many rows there are: {lost}, now {upgraded}"
    downgrade(connection, schema, script, before)
    assert shape(connection, schema) == shaped, f"the downgrade of {after} does not lead back to {before}"
    back = counts(connection, schema)
    lost = {name: number for name, number in filled.items() if name in upgraded and back[name] != number}
    assert not lost, f"the downgrade of {after} loses rows: {lost}, now {back}"


@pytest.mark.parametrize("schema", sorted(FOLDERS))
async def test_every_revision_carries_a_filled_database_there_and_back(empty: str, schema: str) -> None:
    if schema != "bus":
        await migration.migrate(empty, "bus", FOLDERS["bus"])
    script = script_of(FOLDERS[schema])
    for before, after in steps(FOLDERS[schema]):
        await within(empty, lambda connection: check_step(connection, schema, script, before, after))  # noqa: B023


@pytest.mark.parametrize("schema", sorted(FOLDERS))
async def test_the_first_revision_takes_rows_everywhere_and_leaves_nothing_behind(empty: str, schema: str) -> None:
    if schema != "bus":
        await migration.migrate(empty, "bus", FOLDERS["bus"])
    script = script_of(FOLDERS[schema])
    (first,) = script.get_bases()
    assert first == FIRST

    def work(connection: Connection) -> tuple[dict[str, int], list[str]]:
        upgrade(connection, schema, script, first)
        filled = fill(connection, schema)
        downgrade(connection, schema, script, "base")
        return filled, [line for line in shape(connection, schema) if " migrations" not in line]

    filled, left = await within(empty, work)
    assert filled
    assert all(filled.values()), filled
    assert left == []


# ---- the machinery itself, on revisions that are planted

REVISION = '''
"""A planted revision."""

from alembic import op

revision = "{revision}"
down_revision = {before}


def upgrade() -> None:
    {up}
'''
DOWN = """

def downgrade() -> None:
    {down}
"""
CREATE = """op.execute(
        "CREATE TABLE planted.shops (id uuid PRIMARY KEY, state text NOT NULL CHECK (state IN ('open', 'closed')), "
        "owner text, opened timestamptz, CHECK (owner IS NOT NULL OR state = 'closed'))"
    )
    op.execute("CREATE TABLE planted.items (shop uuid REFERENCES planted.shops (id), sum integer CHECK (sum > 5))")
    op.execute("CREATE TABLE planted.log (id uuid PRIMARY KEY) PARTITION BY RANGE (id)")
    op.execute("CREATE TABLE planted.log_default PARTITION OF planted.log DEFAULT")"""


def planted(folder: Path, up: str, down: str | None) -> Path:
    """A folder of two revisions: the first makes tables, the second does as it is told."""
    (folder / "versions").mkdir()
    gone = "op.execute('DROP TABLE planted.shops, planted.items, planted.log')"
    first = REVISION.format(revision="r1", before="None", up=CREATE) + DOWN.format(down=gone)
    second = REVISION.format(revision="r2", before='"r1"', up=up) + (DOWN.format(down=down) if down else "")
    (folder / "versions" / "r1_first.py").write_text(first)
    (folder / "versions" / "r2_second.py").write_text(second)
    return folder


async def check_planted(url: str, folder: Path) -> None:
    ((before, after),) = steps(folder)
    script = script_of(folder)
    await within(url, lambda connection: check_step(connection, "planted", script, before, after))


ADD = 'op.execute("ALTER TABLE planted.shops ADD COLUMN city text {rule}")'
EMPTY = 'op.execute("DELETE FROM planted.items")'
DROP = 'op.execute("ALTER TABLE planted.shops DROP COLUMN city")'


async def test_a_good_second_revision_passes(empty: str, tmp_path: Path) -> None:
    await check_planted(empty, planted(tmp_path, ADD.format(rule="NOT NULL DEFAULT ''"), DROP))


@pytest.mark.parametrize(
    ("up", "down", "complaint"),
    [
        (ADD.format(rule="NOT NULL"), DROP, "contains null values"),
        (ADD.format(rule=""), None, "downgrade"),
        (ADD.format(rule=""), "pass", "does not lead back to r1"),
        (EMPTY, "pass", "changes how many rows there are"),
        (ADD.format(rule=""), f"{DROP}\n    {EMPTY}", "loses rows"),
    ],
    ids=["breaks on filled tables", "no downgrade", "empty downgrade", "loses rows", "downgrade loses rows"],
)
async def test_a_bad_second_revision_is_caught(
    empty: str, tmp_path: Path, up: str, down: str | None, complaint: str
) -> None:
    with pytest.raises(Exception, match=complaint):
        await check_planted(empty, planted(tmp_path, up, down))


# ---- what a database says of its build


async def test_a_database_of_another_build_is_named_and_left_alone(servers: Servers, empty: str) -> None:
    owner = await asyncpg.connect(empty, timeout=10)
    await owner.execute("CREATE SCHEMA decider; CREATE TABLE decider.migrations (version_num varchar(32) NOT NULL)")
    await owner.execute("INSERT INTO decider.migrations VALUES ('0001')")
    roles = "SELECT string_agg(rolname || rolpassword, ',' ORDER BY rolname) FROM pg_authid"
    before = await owner.fetchval(roles)
    try:
        with pytest.raises(
            migration.UnknownRevision, match=r"schema decider .* '0001' .*`prunella up --fresh`"
        ) as said:
            await migrate.migrate_all(empty, servers.nats_url, "another secret")
        assert "\n" not in str(said.value)
        with pytest.raises(migration.UnknownRevision):
            await migration.migrate(empty, "decider", FOLDERS["decider"])
        assert await owner.fetchval("SELECT to_regnamespace('bus')") is None
        assert await owner.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'decider'") == 1
        assert await owner.fetchval(roles) == before
    finally:
        await owner.close()


async def test_every_table_carries_its_merchant_or_says_why_not(servers: Servers) -> None:
    name = f"t_{secrets.token_hex(5)}"
    await servers.new_database(name)
    owner = await asyncpg.connect(servers.postgres_url(database=name), timeout=10)
    try:
        found = {row["name"] for row in await owner.fetch(WITHOUT_MERCHANT, list(FOLDERS))}
    finally:
        await owner.close()
        await servers.drop_database(name)
    assert found == set(PLANE_WIDE)
