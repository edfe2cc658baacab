"""PostgreSQL, the only system of record: transactions that are retried, facts that leave with their state.

Rule: a closure given to `transaction` is idempotent and does no I/O besides SQL; it may run several times, and
commits at most once. Facts recorded in it are rows of the same transaction; nobody sees them before the commit.
Time comes from the clock of the service, never from the server. SQLAlchemy keeps the connections and names the
parameters; statements go to the driver itself, which halves the time of a short transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.engine.url import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from libs.common import facts
from libs.common.clock import Clock, SystemClock
from libs.common.errors import Unavailable
from libs.common.facts import RecordedFact
from libs.common.telemetry import current_traceparent
from prunella.v1.events_pb2 import Event

T = TypeVar("T")

# Serialization failure, deadlock, lock not available, stale prepared statement: the server undid everything.
RETRIED = frozenset({"40001", "40P01", "55P03", "0A000"})
# Connections that broke, resources that are short, operators and time limits that intervened, a disk that fails.
AWAY = ("08", "53", "57", "58")
STANDBY = "25006"
# What statements raise that go to the driver itself; transactions and looks translate it.
# The last is what asyncpg says of a connection that was cut in the middle of a message.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
TIME_LIMIT = "57014"
STATEMENTS = 400  # kept prepared by each connection
SKEW = 2.0  # seconds between our clock and the database's
TIMEOUTS = {
    "statement_timeout": "8000",
    "lock_timeout": "3000",
    "idle_in_transaction_session_timeout": "15000",
    "tcp_user_timeout": "10000",
    "timezone": "UTC",
}


@lru_cache(maxsize=1024)
def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """A statement with numbers for its names, and the names in their order."""
    compiled: Any = text(sql).compile(dialect=dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())


@lru_cache(maxsize=1024)
def _shape(columns: tuple[str, ...]) -> Callable[[Any], Any]:
    made: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024 - the statement names them
    shape: Callable[[Any], Any] = made._make
    return shape


@dataclass
class Transaction:
    """An open transaction; `now` is the time of everything that happens in it. Rows are named tuples."""

    driver: Any
    now: datetime
    recorded: list[RecordedFact] = field(default_factory=list)
    calls: list[Callable[[], None]] = field(default_factory=list)

    async def all(self, sql: str, **values: Any) -> Sequence[Any]:
        """Every row of a statement."""
        statement, names = numbered(sql)
        found = await self.driver.fetch(statement, *[values[name] for name in names])
        if not found:
            return []
        shape = _shape(tuple(found[0].keys()))
        return [shape(record) for record in found]

    async def first(self, sql: str, **values: Any) -> Any | None:
        """The first row, or None."""
        rows = await self.all(sql, **values)
        return rows[0] if rows else None

    async def value(self, sql: str, **values: Any) -> Any:
        """The first column of the first row, or None."""
        row = await self.first(sql, **values)
        return None if row is None else row[0]

    async def run(self, sql: str, **values: Any) -> int:
        """How many rows a statement touched."""
        statement, names = numbered(sql)
        status: str = await self.driver.execute(statement, *[values[name] for name in names])
        number = status.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0

    def record(self, fact: Event) -> None:
        """Records a fact with this transaction, in the running trace; one without a time gets the transaction's."""
        if not fact.HasField("time"):
            fact.time.FromDatetime(self.now)
        self.recorded.append(RecordedFact(fact, current_traceparent()))

    async def flush(self) -> None:
        """Writes the recorded facts in one statement, as the last of the transaction."""
        if self.recorded:
            await self.run(facts.INSERT, **facts.columns(self.recorded))

    def after_commit(self, call: Callable[[], None]) -> None:
        """Has `call` run once the commit is known."""
        self.calls.append(call)


class Database:
    """A pool of connections of one role. Errors that pass are `Unavailable`; broken rules stay SQLAlchemy's."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        pool_size: int = 8,
        application_name: str = "prunella",
        session: Mapping[str, str] | None = None,
    ) -> None:
        """`session` are settings of every connection on top of the time limits."""
        self.clock = clock
        self.engine = engine(url, pool_size=pool_size, application_name=application_name, session=session)
        self.listeners: list[Callable[[Sequence[RecordedFact]], None]] = []
        self._signals: dict[str, asyncio.Event] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def transaction(self, work: Callable[[Transaction], Awaitable[T]], *, retries: int = 5) -> T:
        """Runs `work` in one READ COMMITTED transaction and returns what it returned.

        The work belongs to the service, not to the caller: a caller that is cancelled leaves no half-done transaction.
        Raises Unavailable (reason DATABASE_UNAVAILABLE, or COMMIT_UNKNOWN when the answer to the commit was lost).
        """
        task = asyncio.ensure_future(self._persist(work, retries))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _persist(self, work: Callable[[Transaction], Awaitable[T]], retries: int) -> T:
        for attempt in range(retries + 1):
            try:
                return await self._once(work)
            except (TimeoutError, DBAPIError, PoolTimeout, OSError) as error:
                if not transient(error):
                    raise
                # What took too long once would only take as long again.
                if attempt == retries or sqlstate(error) == TIME_LIMIT:
                    raise unavailable(error) from error
            # Full jitter; the first retry comes at once since most conflicts are already over.
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - spreads load, guards nothing
        raise AssertionError("unreachable")

    async def _once(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.engine.connect() as connection:
            transaction = Transaction(await _driver(connection), self.clock.now())
            try:
                await transaction.driver.execute("BEGIN")
                result = await work(transaction)
                await transaction.flush()
            except BaseException as error:
                await _roll_back(connection, transaction.driver)
                if isinstance(error, DRIVER_ERRORS):
                    raise _translated(error) from error
                raise
            try:
                await transaction.driver.execute("COMMIT")
            except (TimeoutError, OSError, *DRIVER_ERRORS) as error:
                await _give_up(connection)
                if _broken(error):
                    raise Unavailable(
                        "the database did not say whether it committed; asking again is safe",
                        reason="COMMIT_UNKNOWN",
                        retry_after=1.0,
                    ) from error
                raise _translated(error) from error
        self._announce(transaction)
        return result

    def _announce(self, transaction: Transaction) -> None:
        for call in transaction.calls:
            call()
        if transaction.recorded:
            for listener in self.listeners:
                listener(transaction.recorded)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """One look: each statement for itself, so none may change anything."""
        try:
            async with self.engine.connect() as connection:
                try:
                    yield Transaction(await _driver(connection), self.clock.now())
                except (TimeoutError, OSError, *DRIVER_ERRORS) as error:
                    if _broken(error):
                        await _give_up(connection)
                    if isinstance(error, DRIVER_ERRORS):
                        raise _translated(error) from error
                    raise
        except (TimeoutError, DBAPIError, PoolTimeout, OSError) as error:
            # Only the state of an error tells what passes by itself.
            if not (isinstance(error, OperationalError | InterfaceError) or transient(error)):
                raise
            raise unavailable(error) from error

    def signal(self, name: str) -> None:
        """Wakes who waits for `name` in this process; a hint, never the only way to learn of work."""
        self._signals.setdefault(name, asyncio.Event()).set()

    async def wait(self, name: str, timeout: float) -> None:
        """Waits for a signal, or `timeout` seconds."""
        flag = self._signals.setdefault(name, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await flag.wait()
        flag.clear()

    async def ping(self) -> None:
        """One round trip. Raises Unavailable, also when the clocks of the two machines disagree by seconds.

        Safety rests on tokens and locks, but leases and deadlines of replicas are compared with each other.
        """
        async with self.reading() as transaction:
            theirs = await transaction.value("SELECT clock_timestamp()")
        if not isinstance(self.clock, SystemClock):
            return
        offset = (theirs - self.clock.now()).total_seconds()
        if abs(offset) > SKEW:
            raise Unavailable(
                f"the database's clock is {offset:+.1f} s off ours, at most {SKEW:g} s may be: synchronise both (NTP)",
                reason="CLOCK_SKEW",
            )

    async def close(self) -> None:
        """Waits for running transactions, then closes every connection."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=5)
        await self.engine.dispose()


def address(url: str) -> URL:
    """The SQLAlchemy address of a plain postgresql:// one."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def engine(url: str, *, pool_size: int, application_name: str, session: Mapping[str, str] | None = None) -> AsyncEngine:
    """An engine with every timeout set; none of asyncpg's or SQLAlchemy's defaults ends by itself."""
    made = create_async_engine(
        address(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "statement_cache_size": STATEMENTS,
            "server_settings": {"application_name": application_name, **TIMEOUTS, **(session or {})},
        },
    )

    @event.listens_for(made.sync_engine, "connect")
    def decode_json(connection: Any, _record: Any) -> None:
        connection.run_async(_set_codec)

    return made


async def _set_codec(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=str, decoder=json.loads, schema="pg_catalog")


async def _driver(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def _roll_back(connection: AsyncConnection, driver: Any) -> None:
    try:
        await driver.execute("ROLLBACK")
    except (TimeoutError, OSError, *DRIVER_ERRORS):
        await _give_up(connection)


async def _give_up(connection: AsyncConnection) -> None:
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


def sqlstate(error: BaseException) -> str:
    """The five-letter state of a database error, or an empty text."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is done again."""
    if not isinstance(error, DBAPIError):
        return True
    state = sqlstate(error)
    return error.connection_invalidated or state in RETRIED or state.startswith(AWAY) or state == STANDBY


def unavailable(error: BaseException) -> Unavailable:
    """The error callers see when the database cannot be used."""
    return Unavailable(
        f"the database cannot be used right now ({type(getattr(error, 'orig', None) or error).__name__})",
        reason="DATABASE_UNAVAILABLE",
        retry_after=1.0,
    )


def _seen(task: asyncio.Task[Any]) -> None:
    # The caller may be gone; its error was reported where it happened.
    if not task.cancelled():
        task.exception()
