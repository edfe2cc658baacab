"""The bus keeps its promise: every committed fact has its effect exactly once in each consumer, whatever NATS does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from deploy.local.testing import BackingServices, until
from libs.common.bus import Bus, Consumer, Once, dead_letters, fact, redrive
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.errors import NotFound, Unavailable
from libs.common.telemetry import Telemetry
from prunella.v1.events_pb2 import Event, FactDeadLettered, IncidentClosed, IncidentOpened

LATER = timedelta(seconds=30)


@dataclass
class Effects:
    """A consumer's state: a table of what it did, and a knob that makes its reaction fail."""

    database: Database
    heard: list[str] = field(default_factory=list)
    fail: Exception | None = None

    async def react(self, _doors: object, event: Event, once: Once) -> None:
        self.heard.append(event.id)
        if self.fail:
            raise self.fail

        async def work(transaction: Transaction) -> None:
            await transaction.run("INSERT INTO bus.effects VALUES (:id)", id=event.id)

        await once(work)

    async def count(self, event: Event) -> int:
        async with self.database.reading() as reading:
            return int(await reading.value("SELECT count(*) FROM bus.effects WHERE id = :id", id=event.id))


@dataclass
class Line:
    """A source, a consumer, and the servers between them."""

    database: Database
    bus: Bus
    consumer: Consumer
    effects: Effects

    async def tell(self, event: Event | None = None) -> Event:
        told = event or opened()

        async def work(transaction: Transaction) -> None:
            transaction.record(told)

        await self.database.transaction(work)
        return told


def opened() -> Event:
    return fact("ingest", IncidentOpened(type="error_spike"), reason="a test", plugin="p-1")


@pytest.fixture
async def line(backing: BackingServices) -> AsyncIterator[Line]:
    owner = Database(backing.url(), clock=SystemClock())
    await owner.transaction(lambda tx: tx.run("CREATE TABLE bus.effects (id text NOT NULL)"))
    await owner.transaction(lambda tx: tx.run("GRANT ALL ON bus.effects TO prunella_ingest, prunella_decider"))
    await owner.close()
    clock = SystemClock()
    database, deciding = Database(backing.url("ingest"), clock=clock), Database(backing.url("decider"), clock=clock)
    bus = Bus(backing.nats_url, database, "ingest", clock)
    effects = Effects(database)
    telemetry = Telemetry("decider")
    consumer = Consumer(bus, deciding, "decider", {"incident_opened": effects.react}, None, telemetry)
    await bus.start()
    await until(lambda: bus.client.is_connected)
    yield Line(database, bus, consumer, effects)
    await consumer.stop()
    await bus.stop()
    await database.close()
    await deciding.close()


async def redriven(line: Line, consumer: str, event: Event) -> None:
    await line.database.transaction(lambda tx: redrive(tx, consumer, event.id))


async def given_up(line: Line) -> list[FactDeadLettered]:
    """What was recorded about facts that a consumer gave up."""
    async with line.database.reading() as reading:
        rows = await reading.all("SELECT payload FROM bus.facts WHERE fact = 'fact_dead_lettered'")
    return [Event.FromString(row.payload).fact_dead_lettered for row in rows]


async def last_dead(line: Line) -> RawStreamMsg | None:
    with contextlib.suppress(NotFoundError):
        return await line.bus.stream.get_last_msg("DEAD", "dead.>")
    return None


async def happened(line: Line, event: Event) -> None:
    """The effect is there, and sooner than the sweep (5 s) could have brought it: NATS did."""

    async def seen() -> bool:
        return await line.effects.count(event) == 1

    await until(seen, 3.0)


async def test_a_fact_reaches_its_reaction_and_is_marked_as_published(line: Line) -> None:
    await line.consumer.start()
    event = await line.tell()
    await happened(line, event)

    async def published() -> bool:
        async with line.database.reading() as reading:
            return bool(await reading.value("SELECT publish_time FROM bus.facts WHERE id = :id", id=event.id))

    await until(published)


async def test_a_rolled_back_transaction_tells_nothing(line: Line) -> None:
    async def work(transaction: Transaction) -> None:
        transaction.record(opened())
        raise ValueError("the state was not saved")

    with pytest.raises(ValueError, match="not saved"):
        await line.database.transaction(work)
    async with line.database.reading() as reading:
        assert await reading.value("SELECT count(*) FROM bus.facts") == 0


async def test_a_repeated_delivery_has_no_second_effect(line: Line) -> None:
    event = await line.tell()
    for again in (False, False, True, True):
        assert await line.consumer.handle(event, redelivered=again) is None
    assert await line.effects.count(event) == 1


async def test_two_replicas_share_the_work(line: Line) -> None:
    other = Consumer(line.bus, line.database, "decider", line.consumer.reactions, None, line.consumer.telemetry)
    await line.consumer.start()
    await other.start()
    events = [await line.tell() for _ in range(40)]
    for event in events:
        await happened(line, event)
    await asyncio.gather(line.consumer.run_once(now_in(line)), other.run_once(now_in(line)))
    assert [await line.effects.count(event) for event in events] == [1] * len(events)
    await other.stop()


async def test_what_nats_never_delivers_is_found_in_the_table(line: Line) -> None:
    await line.bus.client.close()
    event = await line.tell()
    assert await line.consumer.run_once(now_in(line)) == 1
    assert await line.effects.count(event) == 1
    assert await line.consumer.run_once(now_in(line)) == 0


async def test_a_deleted_stream_is_made_again_and_loses_nothing(line: Line) -> None:
    await line.consumer.start()
    await happened(line, await line.tell())
    await line.bus.stream.delete_stream("HEAL")
    event = await line.tell()
    await line.consumer.run_once(now_in(line))
    await happened(line, event)
    await happened(line, await line.tell())


async def test_a_reaction_that_keeps_failing_becomes_a_dead_letter_and_comes_back_by_redrive(line: Line) -> None:
    line.effects.fail = ValueError("bad luck")
    event = await line.tell()
    for _ in range(dead_letters.MAX_ERRORS + 1):
        await line.consumer.handle(event, redelivered=True)
    async with line.database.reading() as reading:
        (letter,) = await dead_letters.list_dead_letters(reading)
    assert (letter.errors, letter.crashes) == (dead_letters.MAX_ERRORS, 0)
    assert "bad luck" in letter.reason
    dead = await until(lambda: last_dead(line))
    assert dead.subject == "dead.decider.incident_opened"
    assert Event.FromString(dead.data).id == event.id
    assert await given_up(line) == [FactDeadLettered(consumer="decider", event=event.id, fact="incident_opened")]
    assert await line.consumer.run_once(now_in(line)) == 0, "a dead letter blocks nothing"
    line.effects.fail = None
    await redriven(line, "decider", event)
    await line.consumer.run_once(now_in(line))
    assert await line.effects.count(event) == 1
    await redriven(line, "decider", event)
    with pytest.raises(NotFound):
        await redriven(line, "nobody", event)


async def test_a_fact_that_kills_its_consumer_becomes_a_dead_letter_as_a_crash(line: Line) -> None:
    event = await line.tell()
    for _ in range(dead_letters.MAX_CRASHES):
        await line.database.transaction(
            lambda tx: tx.run(dead_letters.COUNT_ATTEMPT, consumer="decider", event=event.id)
        )
    await line.consumer.handle(event, redelivered=True)
    async with line.database.reading() as reading:
        (letter,) = await dead_letters.list_dead_letters(reading)
    assert (letter.errors, letter.crashes) == (0, dead_letters.MAX_CRASHES)
    assert line.effects.heard == []
    assert [one.event for one in await given_up(line)] == [event.id]


async def test_a_dead_letter_about_a_dead_letter_is_not_told_of(line: Line) -> None:
    line.consumer.reactions["fact_dead_lettered"] = line.effects.react
    line.effects.fail = ValueError("bad luck")
    told = FactDeadLettered(consumer="ops", event="e", fact="incident_opened")
    event = await line.tell(fact("ingest", told, reason="a test", plugin="p-1"))
    for _ in range(dead_letters.MAX_ERRORS + 1):
        await line.consumer.handle(event, redelivered=True)
    async with line.database.reading() as reading:
        (letter,) = await dead_letters.list_dead_letters(reading)
    assert letter.fact == "fact_dead_lettered"
    assert await given_up(line) == [told]


async def test_a_sibling_that_is_away_makes_no_dead_letter(line: Line) -> None:
    line.effects.fail = Unavailable("patcher is away", reason="PATCHER_UNAVAILABLE")
    event = await line.tell()
    for _ in range(20):
        assert await line.consumer.handle(event, redelivered=True) == 1.0
    line.effects.fail = None
    await line.consumer.handle(event, redelivered=True)
    assert await line.effects.count(event) == 1


async def test_a_fact_nobody_here_knows_is_left_for_a_newer_build(line: Line) -> None:
    await line.consumer.start()
    event = await line.tell(fact("ingest", IncidentClosed(resolution="healthy"), reason="a test", plugin="p-1"))
    await happened(line, await line.tell())
    assert await line.effects.count(event) == 0


async def test_no_service_tells_a_fact_of_another(line: Line) -> None:
    forged = fact("patcher", IncidentOpened(type="error_spike"), reason="a lie", plugin="p-1")
    with pytest.raises(Exception, match="row-level security"):
        await line.tell(forged)


def now_in(line: Line) -> datetime:
    return line.database.clock.now() + LATER
