"""Trouble on the bus that nobody may notice: rubbish on a subject, and facts left behind by an outage under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.bus import Bus, Consumer, Once, fact, redrive
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.names import new_id
from libs.common.telemetry import Telemetry
from prunella.v1.events_pb2 import Event, IncidentOpened


@pytest.fixture
async def database(backing: BackingServices) -> AsyncIterator[Database]:
    made = Database(backing.url("ingest"), clock=SystemClock())
    yield made
    await made.close()


@pytest.fixture
async def bus(backing: BackingServices, database: Database) -> AsyncIterator[Bus]:
    made = Bus(backing.nats_url, database, "ingest", SystemClock())
    await made.start()
    await until(lambda: made.client.is_connected)
    yield made
    await made.stop()


async def tell(database: Database) -> Event:
    told = fact("ingest", IncidentOpened(type="error_spike"), reason="a test", plugin=new_id())

    async def work(tx: object) -> None:
        tx.record(told)  # type: ignore[attr-defined]

    await database.transaction(work)
    return told


async def test_a_message_that_cannot_be_read_is_left_behind_for_good(bus: Bus, database: Database) -> None:
    heard: list[str] = []

    async def react(_doors: object, event: Event, _once: Once) -> None:
        heard.append(event.id)

    consumer = Consumer(bus, database, "ingest", {"incident_opened": react}, None, Telemetry("ingest"))
    await consumer.start()
    try:
        first = await tell(database)
        await until(lambda: first.id in heard)
        await bus.stream.publish("heal.incident_opened.0.p", b"\xff\xff rubbish")
        second = await tell(database)
        await until(lambda: second.id in heard)

        async def settled() -> bool:
            info = await bus.stream.consumer_info("HEAL", "ingest")
            return bool(info.num_ack_pending == 0 and info.num_pending == 0)

        await until(settled, what="nothing waits for an acknowledgement")
    finally:
        await consumer.stop()


async def test_facts_left_behind_are_published_although_news_never_pause(
    backing: BackingServices, bus: Bus, database: Database
) -> None:
    unheard = Database(backing.url("ingest"), clock=SystemClock())
    left = await tell(unheard)  # committed, and the relay's memory knows nothing of it

    async def published() -> bool:
        await tell(database)
        async with database.reading() as reading:
            row = await reading.value("SELECT publish_time FROM bus.facts WHERE id = CAST(:id AS uuid)", id=left.id)
        return row is not None

    try:
        await until(published, 6, what="the fact is published")
    finally:
        await unheard.close()


async def test_a_reaction_that_always_takes_too_long_is_given_up_like_one_that_always_fails(
    bus: Bus, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.bus.consumer.DEADLINE", 0.05)
    begun: list[str] = []

    async def hang(_doors: object, event: Event, _once: Once) -> None:
        begun.append(event.id)
        await asyncio.Event().wait()

    consumer = Consumer(bus, database, "ingest", {"incident_opened": hang}, None, Telemetry("ingest"))
    slow = await tell(database)
    for _ in range(20):
        if not await consumer.run_once(database.clock.now() + timedelta(minutes=1)):
            break
    assert begun == [slow.id] * 8
    await database.transaction(lambda tx: redrive(tx, "ingest", slow.id))  # it is among the dead letters
