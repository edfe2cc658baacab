"""A transaction keeps its promises whatever becomes of its connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError

from deploy.local.testing import BackingServices
from libs.common.bus import fact
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.errors import Unavailable
from prunella.v1.events_pb2 import BreakerChanged

MAKE = "CREATE TABLE queue.notes (id integer PRIMARY KEY, text text NOT NULL)"
ADD = "INSERT INTO queue.notes VALUES (:id, :text)"
ALL = "SELECT id, text FROM queue.notes ORDER BY id"
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'promises' AND datname = :name"


@pytest.fixture
async def database(backing: BackingServices) -> AsyncIterator[Database]:
    made = Database(backing.url(), clock=SystemClock(), pool_size=2, application_name="promises")
    await made.transaction(lambda tx: tx.run(MAKE))
    yield made
    await made.close()


async def notes(database: Database) -> list[tuple[int, str]]:
    async def look(tx: Transaction) -> list[tuple[int, str]]:
        return [(row.id, row.text) for row in await tx.all(ALL)]

    return await database.transaction(look)


async def test_rows_answer_to_names_and_statements_tell_what_they_touched(database: Database) -> None:
    assert await database.transaction(lambda tx: tx.run(ADD, id=1, text="one")) == 1
    assert await notes(database) == [(1, "one")]
    assert await database.transaction(lambda tx: tx.value("SELECT text FROM queue.notes WHERE id = :id", id=1)) == "one"
    assert await database.transaction(lambda tx: tx.first("SELECT id FROM queue.notes WHERE id = :id", id=2)) is None


async def test_a_transaction_that_fails_leaves_neither_rows_nor_facts(database: Database) -> None:
    told: list[object] = []
    database.listeners.append(told.extend)

    async def work(tx: Transaction) -> None:
        tx.record(fact("queue", BreakerChanged(breaker="b"), reason="r"))
        tx.after_commit(lambda: told.append("committed"))
        await tx.run(ADD, id=1, text="one")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.transaction(work)
    assert await notes(database) == []
    assert told == []
    assert await database.transaction(lambda tx: tx.value("SELECT count(*) FROM bus.facts")) == 0


async def test_facts_are_told_after_their_commit(database: Database) -> None:
    told: list[object] = []
    database.listeners.append(told.extend)

    async def work(tx: Transaction) -> None:
        tx.record(fact("queue", BreakerChanged(breaker="b"), reason="r"))
        assert told == []

    await database.transaction(work)
    assert len(told) == 1
    assert await database.transaction(lambda tx: tx.value("SELECT count(*) FROM bus.facts")) == 1


async def test_what_the_driver_cannot_send_is_no_passing_trouble(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.transaction(lambda tx: tx.run(ADD, id="no number", text="x"))
    assert await notes(database) == []


async def test_a_connection_that_was_cut_is_replaced(database: Database, backing: BackingServices) -> None:
    async def cut(_tx: Transaction) -> None:
        other = Database(backing.url(), clock=SystemClock(), pool_size=1, application_name="other")
        try:
            await other.transaction(lambda tx: tx.all(KILL, name=backing.name))
        finally:
            await other.close()

    tries = 0

    async def work(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await cut(tx)
        await tx.run(ADD, id=tries, text="again")

    await database.transaction(work)
    assert await notes(database) == [(tries, "again")]


async def test_a_commit_without_an_answer_is_said_to_be_unknown(database: Database, backing: BackingServices) -> None:
    async def work(tx: Transaction) -> None:
        await tx.run(ADD, id=1, text="perhaps")
        await asyncio.shield(_cut(backing))

    with pytest.raises(Unavailable) as unknown:
        await database.transaction(work)
    assert unknown.value.reason == "COMMIT_UNKNOWN"


async def _cut(backing: BackingServices) -> None:
    other = Database(backing.url(), clock=SystemClock(), pool_size=1, application_name="other")
    await other.transaction(lambda tx: tx.all(KILL, name=backing.name))
    await other.close()
