"""A database without the toolkit between transactions and driver: for a service whose latency somebody waits for.

Rule: the same pool, time limits, retries, facts and errors as any other `Database`, and the same statements with named
parameters; only the way to the driver is shorter, about half the time of a short transaction. Rows are named tuples.
"""

from __future__ import annotations

import contextlib
from collections import namedtuple
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import facts
from libs.common.database import Database, Transaction
from libs.common.errors import Unavailable

T = TypeVar("T")


@lru_cache(maxsize=512)
def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """A statement with numbers for its names, and the names in their order."""
    compiled: Any = text(sql).compile(dialect=dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())


@lru_cache(maxsize=512)
def _shape(columns: tuple[str, ...]) -> Callable[[Any], Any]:
    row: Any = namedtuple("Row", columns)  # type: ignore[misc]  # noqa: PYI024 - the statement names them
    make: Callable[[Any], Any] = row._make
    return make


@dataclass
class SwiftTransaction(Transaction):
    """A transaction on the driver itself."""

    driver: Any = None

    async def all(self, sql: str, **values: Any) -> Sequence[Any]:
        """Every row of a statement."""
        statement, names = numbered(sql)
        found = await self.driver.fetch(statement, *[values[name] for name in names])
        if not found:
            return []
        make = _shape(tuple(found[0].keys()))
        return [make(record) for record in found]

    async def first(self, sql: str, **values: Any) -> Any | None:
        """The first row, or None."""
        rows = await self.all(sql, **values)
        return rows[0] if rows else None

    async def run(self, sql: str, **values: Any) -> int:
        """How many rows a statement touched."""
        statement, names = numbered(sql)
        status: str = await self.driver.execute(statement, *[values[name] for name in names])
        number = status.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0


class SwiftDatabase(Database):
    """A `Database` whose transactions are swift; single looks (`reading`) are as everywhere."""

    async def _once(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            transaction = SwiftTransaction(connection, self.clock.now(), driver=driver)
            try:
                await driver.execute("BEGIN")
                result = await work(transaction)
                if transaction.told:
                    await facts.insert(transaction)
            except BaseException as error:
                await _roll_back(connection, driver)
                if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
                    raise _translated(error) from error
                raise
            try:
                await driver.execute("COMMIT")
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                await connection.invalidate()
                if _broken(error):
                    raise Unavailable(
                        "the database did not say whether it committed; asking again is safe",
                        reason="COMMIT_UNKNOWN",
                        retry_after=1.0,
                    ) from error
                raise _translated(error) from error
        self._announce(transaction)
        return result


async def _roll_back(connection: AsyncConnection, driver: Any) -> None:
    try:
        await driver.execute("ROLLBACK")
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        with contextlib.suppress(DBAPIError, OSError):
            await connection.invalidate()


def _broken(error: BaseException) -> bool:
    """Whether the connection is of no use any more; a value the driver cannot send is the caller's mistake."""
    if isinstance(error, asyncpg.QueryCanceledError | ValueError):
        return False
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError)
    return True


def _translated(error: BaseException) -> DBAPIError:
    return DBAPIError(None, None, error, connection_invalidated=_broken(error))
