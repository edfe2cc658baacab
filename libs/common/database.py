"""PostgreSQL, the only system of record: transactions that are retried, facts that leave with their state.

Rule: a closure given to `transaction` is idempotent and does no I/O besides SQL; it may run several times, and
commits at most once. Facts recorded in it are rows of the same transaction; nobody sees them before the commit.
Time comes from the clock of the service, never from the server. SQLAlchemy keeps the connections and names the
parameters; statements go to the driver itself, which halves the time of a short transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import facts
from libs.common.clock import Clock, SystemClock
from libs.common.database_connection import engine, opening
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
# What the values of rows cause: data exceptions, broken constraints, limits of a row, and what triggers raise.
ROWS_REFUSED = ("22", "23", "54", "P0001")
# What statements raise that go to the driver itself; transactions and looks translate it.
# The last is what asyncpg says of a connection that was cut in the middle of a message.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
TIME_LIMIT = "57014"
# What the server says of one statement while it serves others: it took too long, waited too long, lost every time to
# others, or wanted too much. Whoever repeats such work has to count.
LIMITS = {
    TIME_LIMIT: "STATEMENT_TIMEOUT",
    "55P03": "LOCK_TIMEOUT",
    "40001": "TRANSACTION_CONFLICT",
    "40P01": "TRANSACTION_CONFLICT",
    "53400": "STATEMENT_TOO_LARGE",
}
SKEW = 2.0  # seconds between our clock and the database's
POOLER = (
    "DATABASE_URL leads to a pooler such as PgBouncer, behind which settings of a session do not hold: set "
    "PRUNELLA_DATABASE_POOLER=transaction, or name PostgreSQL itself"
)
# A setting of every session and its value as the server shows it: where it does not hold, nothing of ours does.
HELD, HELD_VALUE = "statement_timeout", "8s"
REFUSED_SETTING = "unsupported startup parameter"


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

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What raises inside is undone, its facts too, and the transaction goes on: for one element among many."""
        facts, calls = len(self.recorded), len(self.calls)
        await self.driver.execute("SAVEPOINT element")
        try:
            yield
        except BaseException:
            del self.recorded[facts:], self.calls[calls:]
            await self.driver.execute("ROLLBACK TO SAVEPOINT element")
            raise
        finally:
            with contextlib.suppress(*DRIVER_ERRORS):
                await self.driver.execute("RELEASE SAVEPOINT element")

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
        pooled: bool = False,
    ) -> None:
        """`session` are settings of every connection on top of the time limits; `pooled`: a pooler hands servers to
        transactions.
        """
        self.clock = clock
        self.pooled = pooled
        self.engine = engine(
            url, pool_size=pool_size, application_name=application_name, session=session, pooled=pooled
        )
        self._opening = opening(session, pooled=pooled)
        self.listeners: list[Callable[[Sequence[RecordedFact]], None]] = []
        self._signals: dict[str, asyncio.Event] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def transaction(self, work: Callable[[Transaction], Awaitable[T]], *, retries: int = 5) -> T:
        """Runs `work` in one READ COMMITTED transaction and returns what it returned.

        The work belongs to the service, not to the caller: a caller that is cancelled leaves no half-done transaction.
        Raises Unavailable (reason DATABASE_UNAVAILABLE, COMMIT_UNKNOWN when the answer to the commit was lost, or one
        of LIMITS when the database works and this work met a limit of it).
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
                await transaction.driver.execute(self._opening)
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
                    driver = await _driver(connection)
                    async with self._pinned(connection, driver):
                        yield Transaction(driver, self.clock.now())
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

    @contextlib.asynccontextmanager
    async def _pinned(self, connection: AsyncConnection, driver: Any) -> AsyncIterator[None]:
        """Behind a pooler even a look needs a transaction: its statements must meet one server."""
        if not self.pooled:
            yield
            return
        await driver.execute(self._opening)
        try:
            yield
        finally:
            await _roll_back(connection, driver)

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
            row = await transaction.first("SELECT clock_timestamp() AS time, current_setting(:name) AS held", name=HELD)
        assert row is not None
        if row.held != HELD_VALUE:
            raise Unavailable(POOLER, reason="POOLER")
        if not isinstance(self.clock, SystemClock):
            return
        offset = (row.time - self.clock.now()).total_seconds()
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


def unstorable(error: BaseException) -> bool:
    """Whether it is these rows that are refused, every time: a broken rule, or a value that cannot be sent.

    A mistake in a statement is none of theirs.
    """
    if isinstance(error, DRIVER_ERRORS):
        error = _translated(error)
    if isinstance(getattr(error, "orig", error), ValueError):
        return True
    return isinstance(error, DBAPIError) and sqlstate(error).startswith(ROWS_REFUSED)


def unavailable(error: BaseException) -> Unavailable:
    """The error callers see when the database cannot be used, or ended this piece of work by one of its limits."""
    if REFUSED_SETTING in str(error):
        return Unavailable(POOLER, reason="POOLER", retry_after=10.0)
    name = type(getattr(error, "orig", None) or error).__name__
    if limit := LIMITS.get(sqlstate(error)):
        return Unavailable(f"the database ended this work by a limit ({name})", reason=limit, retry_after=1.0)
    return Unavailable(
        f"the database cannot be used right now ({name})", reason="DATABASE_UNAVAILABLE", retry_after=1.0
    )


def met_limit(error: BaseException) -> bool:
    """Whether a database that works ended the work by a limit; done again it may meet the same one, so it counts."""
    return isinstance(error, Unavailable) and error.reason in LIMITS.values()


def _seen(task: asyncio.Task[Any]) -> None:
    # The caller may be gone; its error was reported where it happened.
    if not task.cancelled():
        task.exception()
