"""What a service measures of itself is what is so: the outbox, the consumer, dead letters, errands, connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from deploy.local.testing import BackingServices, until
from libs.common.bus import Bus, Consumer, Once, fact
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.errands import Errands, Runner, send
from libs.common.runtime.process_metrics import ProcessMetrics
from libs.common.telemetry import Telemetry
from prunella.v1.events_pb2 import Event, IncidentOpened

LATER = timedelta(seconds=30)


async def refuses(_doors: object, _event: Event, _once: Once) -> None:
    raise ValueError("no such release")


async def nothing(*_given: Any) -> Any:
    return {}


@dataclass
class Measured:
    """A service that does nothing by itself, so that what it measures stays."""

    database: Database
    bus: Bus
    consumer: Consumer
    server: Any
    metrics: ProcessMetrics

    async def tell(self) -> Event:
        event = fact("decider", IncidentOpened(type="error_spike"), reason="a test", plugin="p-1")

        async def work(tx: Transaction) -> None:
            tx.record(event)

        await self.database.transaction(work)
        return event


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"prunella_{name}", labels or {"service": "decider"})


def of_consumer(name: str) -> float | None:
    return value(name, consumer="decider")


@pytest.fixture
async def measured(backing: BackingServices) -> AsyncIterator[Measured]:
    clock, telemetry = SystemClock(), Telemetry("decider")
    database = Database(backing.url("decider"), clock=clock, pool_size=3)
    bus = Bus(backing.nats_url, database, "decider", clock)
    consumer = Consumer(bus, database, "decider", {"incident_opened": refuses}, None, telemetry)
    errands = Errands(database, "decider", {"ask": Runner(nothing, nothing, nothing)}, None, telemetry)
    server: Any = SimpleNamespace(serving=True)
    metrics = ProcessMetrics("decider", server, [bus, consumer, errands], SimpleNamespace(database=database))
    yield Measured(database, bus, consumer, server, metrics)
    await bus.stop()
    await database.close()


async def test_facts_that_nats_has_not_taken_are_counted_with_their_age(measured: Measured) -> None:
    await measured.metrics.measure()
    assert (value("outbox_facts"), value("outbox_age_seconds"), value("nats_connected")) == (0, 0, 0)
    await measured.tell()
    await measured.tell()
    await asyncio.sleep(0.01)
    await measured.metrics.measure()
    assert value("outbox_facts") == 2
    assert 0.01 <= (value("outbox_age_seconds") or 0) < 10
    await measured.bus.start()

    async def taken() -> bool:
        await measured.metrics.measure()
        return (value("outbox_facts"), value("nats_connected")) == (0, 1)

    await until(taken, 20.0)
    assert value("outbox_age_seconds") == 0


async def test_what_a_consumer_does_not_handle_grows_old_until_it_is_given_up(measured: Measured) -> None:
    now = measured.database.clock.now()
    await measured.consumer.run_once(now)
    assert of_consumer("consumer_lag_seconds") == 0
    await measured.tell()
    failed = value("reaction_seconds_count", consumer="decider", outcome="failed") or 0
    given_up = of_consumer("facts_dead_lettered_total") or 0
    # Each look is later than the fact's next try, until its tries are at an end.
    for number in range(1, 11):
        await measured.consumer.run_once(now + number * LATER)
        if number == 2:
            assert 55 < (of_consumer("consumer_lag_seconds") or 0) < 65
    await measured.metrics.measure()
    assert (of_consumer("consumer_lag_seconds"), of_consumer("dead_letters")) == (0, 1)
    assert value("reaction_seconds_count", consumer="decider", outcome="failed") == failed + 8
    assert of_consumer("facts_dead_lettered_total") == given_up + 1


async def test_errands_are_counted_and_how_long_one_is_due(measured: Measured) -> None:
    async def work(tx: Transaction) -> None:
        await send(tx, "decider", "ask", "a", {}, due_time=tx.now - LATER)
        await send(tx, "decider", "ask", "b", {}, due_time=tx.now + LATER)

    await measured.database.transaction(work)
    await measured.metrics.measure()
    assert (value("errands_pending"), value("errand_leases")) == (2, 0)
    assert 30 <= (value("errands_overdue_seconds") or 0) < 40


async def test_connections_and_health_are_as_they_are(measured: Measured) -> None:
    measured.server.serving = False
    async with measured.database.reading() as reading:
        await reading.value("SELECT 1")
        await measured.metrics.measure()
        assert (value("pool_connections"), value("pool_connections_used"), value("serving")) == (3, 1, 0)


async def test_a_loop_that_is_held_up_shows(measured: Measured) -> None:
    def late() -> float:
        quick = value("event_loop_delay_seconds_bucket", service="decider", le="0.1") or 0
        return (value("event_loop_delay_seconds_count") or 0) - quick

    before = late()
    await measured.metrics.start()
    try:
        # Somebody computes, and nobody else has a turn.
        end = asyncio.get_running_loop().time() + 0.6
        await asyncio.sleep(0.01)
        while asyncio.get_running_loop().time() < end:
            pass
        await until(lambda: late() > before, 5.0)
    finally:
        await measured.metrics.stop()
