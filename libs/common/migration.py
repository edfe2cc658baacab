"""Migrations: Alembic revisions of one schema, applied by the owner, used by a role that owns nothing.

Rule: expand before contract. A revision must work beside the code before it and after it; each schema keeps its own
version table, so services are upgraded one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from libs.common.database_connection import owner_engine

# Any number that nobody else takes as an advisory lock; two migrations at once wait for each other.
LOCK = 7_319_002
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
GRANTS = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}
"""
BUS_GRANTS = """
GRANT USAGE ON SCHEMA bus TO {role};
GRANT SELECT, INSERT ON bus.facts TO {role};
GRANT UPDATE (publish_time) ON bus.facts TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE
    ON bus.inbox, bus.consumer_watermarks, bus.delivery_failures, bus.dead_letters TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bus TO {role}
"""
VERSIONS = "migrations"  # the table of each schema that says which revision it is at


class UnknownRevision(Exception):  # noqa: N818 - says what it means
    """A database was made by a build whose revisions this one does not have; the text says what to do."""


async def check_revisions(url: str, directories: Mapping[str, Path]) -> None:
    """Looks whether this build knows the revision of every schema. Raises UnknownRevision; changes nothing."""
    engine = owner_engine(url)
    try:
        async with engine.connect() as connection:
            for schema, directory in directories.items():
                await connection.run_sync(_check, schema, _script(directory))
    finally:
        await engine.dispose()


async def migrate(url: str, schema: str, directory: Path | str, role: str = "") -> str:
    """Brings `schema` to the newest revision in `directory` and grants it to `role`; returns that revision.

    Raises ValueError for a name that is no plain identifier.
    """
    for name in filter(None, (schema, role)):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a plain lower-case identifier")
    engine = owner_engine(url)
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
    script = _script(directory)
    _check(connection, schema, script)
    run(connection, schema, script, lambda revision, _: script._upgrade_revs("head", revision))  # noqa: SLF001
    return script.get_current_head() or ""


def run(connection: Connection, schema: str, script: ScriptDirectory, steps: Callable[[Any, Any], Any]) -> None:
    """Runs the steps that Alembic finds from a schema's present revision, as its own commands do."""
    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(
            connection=connection, version_table=VERSIONS, version_table_schema=schema, transactional_ddl=True
        )
        environment.run_migrations()


def _script(directory: Path) -> ScriptDirectory:
    return ScriptDirectory(str(directory), version_locations=[str(directory / "versions")])


def _check(connection: Connection, schema: str, script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    opts = {"version_table": VERSIONS, "version_table_schema": schema}
    for revision in MigrationContext.configure(connection, opts=opts).get_current_heads():
        if revision not in known:
            raise UnknownRevision(
                f"schema {schema} of this database is at revision {revision!r} of another build, and no build has been "
                "released yet that this one could continue: start anew with `prunella up --fresh`, or with an empty "
                "database where the server is yours"
            )


def _grant(connection: Connection, schema: str, role: str) -> None:
    for statement in (BUS_GRANTS if schema == "bus" else GRANTS).split(";\n"):
        connection.execute(text(statement.strip().format(schema=schema, role=role)))
