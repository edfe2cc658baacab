"""Connections to PostgreSQL: from an address that was understood, with every time limit set.

Rule: none of the driver's own defaults ends by itself, so each limit is given. Behind a pooler that hands a server to
each transaction (PgBouncer with pool_mode=transaction) nothing may outlive a transaction: no settings of the session,
no prepared statements, and no statement outside of one. What a session would have said, each transaction says then as
it begins, in the same round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from libs.common.database_address import parse

STATEMENTS = 400  # kept prepared by each connection
TIMEOUTS = {
    "statement_timeout": "8000",
    "lock_timeout": "3000",
    "idle_in_transaction_session_timeout": "15000",
    "tcp_user_timeout": "10000",
    "timezone": "UTC",
}
COMMAND_TIMEOUT = 10.0


def opening(session: Mapping[str, str] | None = None, *, pooled: bool) -> str:
    """How a transaction begins; behind a pooler with everything that a session would have set."""
    settings = {**TIMEOUTS, **(session or {})} if pooled else {}
    # Our own names and values, none from outside.
    return "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())])


async def connect(
    url: str,
    application_name: str,
    *,
    session: Mapping[str, str] | None = None,
    command_timeout: float = COMMAND_TIMEOUT,
    pooled: bool = False,
) -> asyncpg.Connection[asyncpg.Record]:
    """One connection; jsonb is read as Python and written as text. `session` are settings beside the time limits.

    Raises ValueError for an address that is not understood, and whatever the driver raises.
    """
    settings = {} if pooled else {**TIMEOUTS, **(session or {})}
    connection = await asyncpg.connect(
        **parse(url).connect_arguments(application_name, settings),
        command_timeout=command_timeout,
        statement_cache_size=0 if pooled else STATEMENTS,
    )
    if pooled:
        await connection.execute("BEGIN")
    await connection.set_type_codec("jsonb", encoder=str, decoder=json.loads, schema="pg_catalog")
    if pooled:
        await connection.execute("COMMIT")
    return connection


def engine(
    url: str, *, pool_size: int, application_name: str, session: Mapping[str, str] | None = None, pooled: bool = False
) -> AsyncEngine:
    """A pool of connections whose statements go to the driver itself. Raises ValueError for a bad address."""
    parse(url)

    async def create() -> Any:
        return await connect(url, application_name, session=session, pooled=pooled)

    return create_async_engine(
        "postgresql+prunella://",
        async_creator=create,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
    )


def owner_engine(url: str) -> AsyncEngine:
    """An engine for migrations, with the toolkit's own dialect; also behind a pooler. Raises ValueError."""
    arguments = parse(url).connect_arguments("migrate") | {"statement_cache_size": 0}

    async def create() -> Any:
        return await asyncpg.connect(**arguments | {"timeout": 10})

    made = create_async_engine("postgresql+asyncpg://", async_creator=create)

    @event.listens_for(made.sync_engine, "do_connect")
    def name_statements(_dialect: Any, _record: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        # Somebody else's statement may be on the server that a pooler hands us.
        keywords |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: f"prunella_{uuid4()}"}

    return made


class Driver(PGDialect_asyncpg):
    """The toolkit's dialect without its own questions to each new connection: statements go past it."""

    supports_statement_cache = True

    def on_connect(self) -> None:
        """Nothing: `connect` has done it."""

    def initialize(self, connection: Any) -> None:
        """Nothing is asked."""


registry.register("postgresql.prunella", __name__, "Driver")
