"""A pool of databases for tests: what one test used is emptied for the next, since copying a database costs far more.

Rule: the next test cannot tell. Every row is gone, the rows that migrations write are there again, sequences begin
anew. A database whose tables, functions or rights were changed, or that has grown large, is dropped instead.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import asyncpg

from deploy.local import sandbox
from deploy.local.servers import Servers

SCHEMAS = ("bus", "ingest", "decider", "patcher", "queue", "ops", "public")
MAX_BYTES = 40_000_000
MAX_IDLE = 8
# Every change of structure writes new rows into these catalogues; maintenance changes their rows in place.
# Partitions do not count: services make them, and those that a new database lacks are dropped.
SCHEMA_DIGEST = """
SELECT md5(string_agg(entry, ',' ORDER BY entry)) FROM (
    SELECT 'c' || c.oid || ':' || c.xmin || ':' || coalesce(CAST(c.relacl AS text), '') AS entry
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY($1) AND NOT c.relispartition
    UNION ALL SELECT 'p' || p.oid || ':' || p.xmin
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY($1)
    UNION ALL SELECT 't' || t.oid || ':' || t.xmin FROM pg_trigger t WHERE NOT tgisinternal AND tgparentid = 0
    UNION ALL SELECT 'k' || k.oid || ':' || k.xmin FROM pg_constraint k
        WHERE k.conparentid = 0 AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = k.conrelid AND c.relispartition)
    UNION ALL SELECT 'n' || n.oid || ':' || n.xmin FROM pg_namespace n WHERE n.nspname = ANY($1)
    UNION ALL SELECT 'a' || a.attrelid || ':' || a.attnum || ':' || a.xmin
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY($1) AND NOT c.relispartition
    UNION ALL SELECT 's' || setdatabase || ':' || setrole || ':' || CAST(setconfig AS text) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS everything
"""
TABLES = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY($1) ORDER BY 1
"""
PARTITIONS = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relispartition AND n.nspname = ANY($1)
"""
SEQUENCES = """
SELECT format('SELECT setval(%L, %s, false)', schemaname || '.' || sequencename, start_value) AS again
FROM pg_sequences WHERE schemaname = ANY($1) ORDER BY 1
"""
FIT_POLICY = "UPDATE patcher.policy SET min_isolation = least(min_isolation, $1)"
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
RESTORE = (
    "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(CAST(NULL AS {table}), $1)"
)


@dataclass
class DatabasePool:
    """The databases of one PostgreSQL that wait for the next test, and what an unused one looks like."""

    servers: Servers
    digests: dict[str, str] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)
    reset_sql: str = ""
    partitions: set[str] = field(default_factory=set)
    initial_rows: dict[str, str] = field(default_factory=dict)

    async def acquire(self, name: str) -> str:
        """An empty database; a new one is called `name`."""
        if self.idle:
            return self.idle.pop()
        await self.servers.new_database(name)
        connection = await self._connect(name)
        try:
            self.digests[name] = await connection.fetchval(SCHEMA_DIGEST, SCHEMAS)
            # A machine that gives a sandbox less than the default asks for tests everything else all the same.
            gives = (await asyncio.to_thread(sandbox.probe))["isolation"]
            await connection.execute(FIT_POLICY, sandbox.LEVELS.index(gives) + 1)
            if not self.reset_sql:
                await self._inspect(connection)
        finally:
            await connection.close(timeout=5)
        return name

    async def release(self, name: str) -> None:
        """Empties a database for the next test, or drops it."""
        if name not in self.digests or len(self.idle) >= MAX_IDLE or not await self._reset(name):
            self.digests.pop(name, None)
            await self.servers.drop_database(name)
            return
        self.idle.append(name)

    async def _reset(self, name: str) -> bool:
        connection = await self._connect(name)
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.fetch(DISCONNECT, name)
            if await connection.fetchval(SCHEMA_DIGEST, SCHEMAS) != self.digests[name]:
                return False
            if await connection.fetchval("SELECT pg_database_size($1)", name) > MAX_BYTES:
                return False
            await connection.execute(self.reset_sql)
            for partition in await self._partitions(connection) - self.partitions:
                await connection.execute(f"DROP TABLE {partition}")
            for table, rows in self.initial_rows.items():
                await connection.execute(RESTORE.format(table=table), rows)
        except asyncpg.PostgresError:
            return False
        finally:
            await connection.close(timeout=5)
        return True

    async def _inspect(self, connection: asyncpg.Connection) -> None:
        """How a database is emptied, and the rows that it has from the beginning."""
        tables = [row["name"] for row in await connection.fetch(TABLES, SCHEMAS)]
        for table in tables:
            rows = await connection.fetchval(f"SELECT jsonb_agg(to_jsonb(t)) FROM {table} t")  # noqa: S608 - our own names
            if rows:
                self.initial_rows[table] = rows if isinstance(rows, str) else json.dumps(rows)
        statements = [f"DELETE FROM {table}" for table in tables]  # noqa: S608 - our own names
        statements += [row["again"] for row in await connection.fetch(SEQUENCES, SCHEMAS)]
        self.reset_sql = ";".join(statements)
        self.partitions = await self._partitions(connection)

    async def _partitions(self, connection: asyncpg.Connection) -> set[str]:
        return {row["name"] for row in await connection.fetch(PARTITIONS, SCHEMAS)}

    async def _connect(self, name: str) -> asyncpg.Connection:
        url = self.servers.postgres_url(database=name)
        return await asyncpg.connect(url, timeout=10, command_timeout=30)
