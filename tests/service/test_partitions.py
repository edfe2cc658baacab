"""Partitions: tables that grow are cut into weeks, which a service makes ahead although it owns nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from deploy.local.testing import BackingServices, Plane
from libs.common.clock import ManualClock, SystemClock
from libs.common.database import Database
from libs.common.names import new_id
from libs.common.partitions import Partitions, partition_statements

MONDAY = datetime(2031, 3, 3, tzinfo=UTC)
ALL = ("decider", "ingest", "ops", "patcher", "queue")
PLANTED = (
    "CREATE SCHEMA planted",
    "CREATE TABLE planted.uuids (id uuid PRIMARY KEY) PARTITION BY RANGE (id)",
    'CREATE TABLE planted.texts (id text COLLATE "C" PRIMARY KEY) PARTITION BY RANGE (id)',
    "CREATE TABLE planted.times (time timestamptz NOT NULL) PARTITION BY RANGE (time)",
    *partition_statements("planted"),
    "GRANT USAGE ON SCHEMA planted TO prunella_ingest",
    "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA planted TO prunella_ingest",
)
PLACES = """
SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relispartition AND c.relkind = 'r' ORDER BY 1
"""


@pytest.fixture
async def owner(backing: BackingServices) -> AsyncIterator[Database]:
    made = Database(backing.url(), clock=SystemClock())
    for statement in PLANTED:
        await made.transaction(lambda tx, one=statement: tx.driver.execute(one))  # type: ignore[misc]
    yield made
    await made.transaction(lambda tx: tx.driver.execute("DROP SCHEMA planted CASCADE"))
    await made.close()


@pytest.fixture
async def service(backing: BackingServices, owner: Database) -> AsyncIterator[Database]:
    del owner
    made = Database(backing.url("ingest"), clock=SystemClock())
    yield made
    await made.close()


async def partitions(database: Database, schema: str = "planted") -> list[str]:
    async with database.reading() as reading:
        return [row.name for row in await reading.all(PLACES, schema=schema)]


async def count(database: Database) -> int:
    """How many partitions there are in all schemas."""
    async with database.reading() as reading:
        return int(await reading.value("SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'"))


async def place(database: Database, table: str, column: str, value: object) -> str:
    """The partition that a row of this key lands in."""
    statement = f"INSERT INTO planted.{table} ({column}) VALUES (:value) RETURNING tableoid::regclass::text"  # noqa: S608
    return str(await database.transaction(lambda tx: tx.value(statement, value=value))).removeprefix("planted.")


async def test_a_revision_makes_the_present_week_and_those_ahead(service: Database) -> None:
    now = datetime.now(UTC)
    weeks = [now - timedelta(days=now.weekday()) + timedelta(weeks=number) for number in range(3)]
    names = [f"{table}_{week:%Y%m%d}" for table in ("texts", "times", "uuids") for week in weeks]
    assert await partitions(service) == sorted([*names, "texts_default", "times_default", "uuids_default"])
    assert await place(service, "uuids", "id", new_id()) == f"uuids_{weeks[0]:%Y%m%d}"


async def test_a_role_that_owns_nothing_has_the_weeks_ahead_made(service: Database) -> None:
    before, everywhere = len(await partitions(service)), await count(service)
    looking = Partitions(service, ManualClock(MONDAY + timedelta(hours=5)))
    made = await looking.run_once()
    assert len(await partitions(service)) == before + 9, "three planted tables, three weeks each"
    assert made == await count(service) - everywhere > 9, "those of the bus and of its own schema, too"
    assert await looking.run_once() == 0
    with pytest.raises(DBAPIError, match="must be owner"):
        await service.transaction(lambda tx: tx.driver.execute("DROP TABLE planted.uuids_20310303"))


@pytest.mark.parametrize(
    ("offset", "name"),
    [(0, "20310303"), (7 * 86_400_000 - 1, "20310303"), (-1, "default"), (21 * 86_400_000, "default")],
)
async def test_a_row_lies_in_the_week_of_its_key(service: Database, offset: int, name: str) -> None:
    await Partitions(service, ManualClock(MONDAY)).run_once()
    time = MONDAY + timedelta(milliseconds=offset)
    assert await place(service, "uuids", "id", new_id(time)) == f"uuids_{name}"
    assert await place(service, "texts", "id", new_id(time)) == f"texts_{name}"
    assert await place(service, "times", "time", time) == f"times_{name}"


async def test_a_week_whose_rows_are_in_the_default_stays_there(service: Database) -> None:
    early, late = new_id(MONDAY), new_id(MONDAY + timedelta(days=1))
    assert await place(service, "uuids", "id", early) == "uuids_default"
    await Partitions(service, ManualClock(MONDAY)).run_once()
    made = await partitions(service)
    assert "uuids_20310303" not in made
    assert {"uuids_20310310", "texts_20310303", "times_20310303"} <= set(made), "nothing else is kept from its weeks"
    assert await place(service, "uuids", "id", late) == "uuids_default"
    async with service.reading() as reading:
        assert await reading.value("SELECT count(*) FROM planted.uuids WHERE id = :id", id=early) == 1


async def test_two_services_at_once_make_each_week_once(
    backing: BackingServices, owner: Database, service: Database
) -> None:
    other = Database(backing.url("ops"), clock=SystemClock())
    await owner.transaction(lambda tx: tx.driver.execute("GRANT USAGE ON SCHEMA planted TO prunella_ops"))
    clock, before, everywhere = ManualClock(MONDAY), len(await partitions(service)), await count(service)
    try:
        made = await asyncio.gather(*(Partitions(one, clock).run_once() for one in (service, other, service, other)))
    finally:
        await other.close()
    assert sum(made) == await count(service) - everywhere
    assert len(await partitions(service)) == before + 9


@pytest.mark.parametrize("role", ALL)
async def test_every_service_may_make_the_weeks_of_the_bus(backing: BackingServices, role: str) -> None:
    database = Database(backing.url(role), clock=SystemClock())
    try:
        assert await Partitions(database, ManualClock(MONDAY)).run_once() >= 6
        assert {"facts_20310303", "inbox_20310317"} <= set(await partitions(database, "bus"))
    finally:
        await database.close()


async def test_every_service_looks_for_weeks_as_long_as_it_lives(plane: Plane) -> None:
    for name, service in plane.services.items():
        kinds = [type(part).__name__ for part in service.parts]
        assert kinds.count("Partitions") == 1, name
        assert kinds[0] == "Assembly", "connections close after everything else"
        assert kinds.index("Bus") + 1 == kinds.index("Partitions") < len(kinds) - 1
        assert service.parts[-1] is service.server
