"""What the demo calls lost is found: each kind of loss is planted once, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.demo import checks
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.facts import fact
from libs.common.names import new_id
from libs.common.testing import Ground
from prunella.v1.events_pb2 import AttemptCreated, AttemptFailed, Event, IncidentClosed

LISTENED = {"ops": ["incident_closed"], "decider": ["attempt_failed"]}


@pytest.fixture
async def database(ground: Ground) -> AsyncIterator[Database]:
    made = Database(ground.url(), clock=SystemClock(), pool_size=1)
    yield made
    await made.close()


async def tell(database: Database, event: Event, *consumers: str, published: bool = True) -> None:
    async def work(tx: Transaction) -> None:
        tx.record(event)

    async def note(tx: Transaction) -> None:
        if published:
            await tx.run("UPDATE bus.facts SET published_at = :now WHERE id = :id", id=event.id, now=tx.now)
        for consumer in consumers:
            await tx.run(
                "INSERT INTO bus.inbox (consumer, event_id, at) VALUES (:consumer, :id, :now)",
                consumer=consumer,
                id=event.id,
                now=tx.now,
            )

    await database.transaction(work)
    await database.transaction(note)


def closed() -> Event:
    return fact("ingest", IncidentClosed(resolution="healthy"), reason="healthy", incident=new_id())


async def test_a_fact_with_its_effect_is_not_lost_and_one_without_is(database: Database) -> None:
    await tell(database, closed(), "ops")
    assert await checks.losses(database, LISTENED) == []
    without = closed()
    await tell(database, without)
    assert await checks.losses(database, LISTENED) == [f"incident_closed {without.id} had no effect in ops"]


async def test_a_fact_that_was_never_published_is_lost(database: Database) -> None:
    await tell(database, closed(), "ops", published=False)
    (line,) = await checks.losses(database, LISTENED)
    assert "was never published" in line


async def test_a_parked_fact_is_lost_until_it_is_handed_on(database: Database) -> None:
    async def park(tx: Transaction) -> None:
        await tx.run(
            "INSERT INTO bus.dead_letter (consumer, event_id, fact, reason, errors, crashes, at)"
            " VALUES ('ops', :id, 'incident_closed', 'it hurts', 3, 0, :now)",
            id=new_id(),
            now=tx.now,
        )

    await database.transaction(park)
    assert await checks.losses(database, LISTENED) == ["incident_closed is parked for ops: it hurts"]


async def test_an_attempt_without_an_end_is_lost(database: Database) -> None:
    incident = new_id()
    await tell(database, fact("patcher", AttemptCreated(attempt="a"), reason="r", incident=incident))
    assert await checks.losses(database, LISTENED) == [f"incident {incident}: 1 attempts, 0 ends"]
    await tell(database, fact("patcher", AttemptFailed(attempt="a"), reason="r", incident=incident), "decider")
    assert await checks.losses(database, LISTENED) == []
    assert await checks.counts(database) == {"attempt_created": 1, "attempt_failed": 1}
