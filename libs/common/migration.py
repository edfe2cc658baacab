"""Migrations: Alembic revisions of one schema, applied by the owner, used by a role that owns nothing.

Rule: expand before contract. A revision must work beside the code before it and after it; each schema keeps its own
version table, so services are upgraded one by one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.database import address

# Any number that nobody else takes as an advisory lock; two migrations at once wait for each other.
LOCK = 7_319_002
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
OWN = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}
"""
SHARED = """
GRANT USAGE ON SCHEMA bus TO {role};
GRANT SELECT, INSERT ON bus.facts TO {role};
GRANT UPDATE (published_at) ON bus.facts TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON bus.inbox, bus.settled, bus.trouble, bus.dead_letter TO {role}
"""
BUS = Path(__file__).resolve().parent / "migrations"


async def migrate(url: str, schema: str, directory: Path | str, role: str = "") -> str:
    """Brings `schema` to the newest revision in `directory` and grants it to `role`; returns that revision.

    Raises ValueError for a name that is no plain identifier.
    """
    for name in filter(None, (schema, role)):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a plain lower-case identifier")
    engine = create_async_engine(address(url), connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            head = await connection.run_sync(_upgrade, schema, Path(directory))
            if role:
                await connection.run_sync(_grant, schema, role)
            return head
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, schema: str, directory: Path) -> str:
    script = ScriptDirectory(str(directory), version_locations=[str(directory / "versions")])

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - how alembic.command itself asks

    with EnvironmentContext(Config(), script, fn=steps, destination_rev="head") as environment:
        environment.configure(
            connection=connection, version_table="migrations", version_table_schema=schema, transactional_ddl=True
        )
        environment.run_migrations()
    return script.get_current_head() or ""


def _grant(connection: Connection, schema: str, role: str) -> None:
    for statement in (SHARED if schema == "bus" else OWN).split(";\n"):
        connection.execute(text(statement.strip().format(schema=schema, role=role)))
