"""Trouble of the database, as callers see it: what passes by itself is Unavailable, what never will is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError

from deploy.local.testing import BackingServices
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.errors import Unavailable

PASSING = {
    "57014": "a statement ran into its time limit",
    "57P01": "the server is shutting down",
    "57P03": "the server is starting",
    "53100": "the disk is full",
    "53200": "memory is short",
    "58030": "the disk fails",
    "25006": "this is a standby",
}


@pytest.fixture
async def database(backing: BackingServices) -> AsyncIterator[Database]:
    made = Database(backing.url("ingest"), clock=SystemClock(), pool_size=2)
    yield made
    await made.close()


def trouble(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", PASSING)
async def test_what_passes_by_itself_is_nobodys_mistake(database: Database, state: str) -> None:
    with pytest.raises(Unavailable):
        await database.transaction(lambda tx: tx.run(trouble(state)), retries=0)
    with pytest.raises(Unavailable):
        async with database.reading() as reading:
            await reading.run(trouble(state))


async def test_a_broken_rule_stays_what_it_is(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.transaction(lambda tx: tx.run(trouble("23505")), retries=0)
    with pytest.raises(DBAPIError):
        async with database.reading() as reading:
            await reading.run(trouble("42P01"))
