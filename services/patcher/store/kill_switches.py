"""Kill switches, and the exclusive lock that makes engaging one linearisable with permits.

Rule: engaging waits on a connection of its own, however long permits in flight take, and its commit is the moment from
which no permit is given. Losing the connection loses nothing but the lock.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from libs.common.database import DRIVER_ERRORS, Database, Transaction, transient, unavailable
from libs.common.database_connection import connect

COLUMNS = "scope, engaged, epoch, actor, reason, update_time"
LIST = f"SELECT {COLUMNS} FROM patcher.kill_switches ORDER BY scope LIMIT 1000"
GET = f"SELECT {COLUMNS} FROM patcher.kill_switches WHERE scope = :scope"
ENGAGED = "SELECT scope FROM patcher.kill_switches WHERE engaged"
LOCK = "SELECT pg_advisory_xact_lock(patcher.lock_key(:scope))"
SET = f"""
INSERT INTO patcher.kill_switches (scope, engaged, epoch, actor, reason, update_time)
VALUES (:scope, :engaged, 1, :actor, :reason, :now)
ON CONFLICT (scope) DO UPDATE
SET engaged = :engaged, epoch = patcher.kill_switches.epoch + 1, actor = :actor, reason = :reason, update_time = :now
RETURNING {COLUMNS}
"""
# The bound of a wait that must not give up while permits are in flight; they end by their own timeouts long before.
PATIENCE = 120.0
UNLIMITED = (
    "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
)
CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class KillSwitch:
    """A stop for automation in a scope; the epoch rises with every change."""

    scope: str
    engaged: bool
    epoch: int
    actor: str
    reason: str
    update_time: datetime


def read(row: Any) -> KillSwitch:
    """The kill switch in a row."""
    return KillSwitch(row.scope, row.engaged, row.epoch, row.actor, row.reason, row.update_time)


@asynccontextmanager
async def exclusive(database: Database, url: str, scope: str) -> AsyncIterator[Transaction]:
    """A transaction of its own connection under the exclusive lock of a scope; the end of the block commits.

    Raises Unavailable for what passes; whether it had committed by then is unknown, and asking again is safe.
    """
    driver: Any = None
    try:
        driver = await connect(url, "patcher", command_timeout=PATIENCE, pooled=database.pooled)
        # Whoever waited must see what was committed meanwhile, whatever is usual on this server.
        await driver.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {UNLIMITED}")
        await Transaction(driver, database.clock.now()).run(LOCK, scope=scope)
        tx = Transaction(driver, database.clock.now())
        yield tx
        await tx.flush()
        await driver.execute("COMMIT")
    except (*DRIVER_ERRORS, DBAPIError, OSError) as error:
        known = error if isinstance(error, DBAPIError | OSError) else DBAPIError(None, None, error)
        # The driver's own complaints, such as a closed connection, have no state.
        if transient(known) or not getattr(error, "sqlstate", ""):
            raise unavailable(known) from error
        raise
    finally:
        if driver is not None:
            with suppress(TimeoutError, OSError, *DRIVER_ERRORS):
                await driver.close(timeout=CLOSE_SECONDS)
    for call in tx.calls:
        call()
    for listener in database.listeners:
        listener(tx.recorded)


async def get(tx: Transaction, scope: str) -> KillSwitch | None:
    """The switch of a scope; None when it was never engaged."""
    row = await tx.first(GET, scope=scope)
    return read(row) if row else None


async def engage(tx: Transaction, scope: str, actor: str, reason: str) -> KillSwitch:
    """A new engagement, also of a switch that is engaged already."""
    return read(await tx.first(SET, scope=scope, engaged=True, actor=actor, reason=reason, now=tx.now))


async def release(tx: Transaction, scope: str, actor: str, reason: str) -> KillSwitch:
    """Ends the engagement that stands."""
    return read(await tx.first(SET, scope=scope, engaged=False, actor=actor, reason=reason, now=tx.now))


async def engaged(tx: Transaction) -> frozenset[str]:
    """Every scope in which automation is stopped."""
    return frozenset(row.scope for row in await tx.all(ENGAGED))


async def list_all(tx: Transaction) -> list[KillSwitch]:
    """Every switch that is or was engaged."""
    return [read(row) for row in await tx.all(LIST)]
