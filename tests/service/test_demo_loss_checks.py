"""What the demo calls lost is found: each kind of loss is planted once, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.demo import loss_checks
from deploy.demo.timeline_follower import TimelineFollower
from deploy.local.testing import BackingServices
from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.facts import fact
from libs.common.names import new_id
from prunella.v1 import ops_pb2
from prunella.v1.events_pb2 import AttemptCreated, AttemptFailed, Event, IncidentClosed, IncidentOpened

SUBSCRIBED = {"ops": ["incident_closed"], "decider": ["attempt_failed"]}


@pytest.fixture
async def database(backing: BackingServices) -> AsyncIterator[Database]:
    made = Database(backing.url(), clock=SystemClock(), pool_size=1)
    yield made
    await made.close()


async def tell(database: Database, event: Event, *consumers: str, published: bool = True) -> None:
    async def work(tx: Transaction) -> None:
        tx.record(event)

    async def note(tx: Transaction) -> None:
        if published:
            await tx.run("UPDATE bus.facts SET publish_time = :now WHERE id = :id", id=event.id, now=tx.now)
        for consumer in consumers:
            await tx.run(
                "INSERT INTO bus.inbox (consumer, event_id, handle_time) VALUES (:consumer, :id, :now)",
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
    assert await loss_checks.losses(database, SUBSCRIBED) == []
    without = closed()
    await tell(database, without)
    assert await loss_checks.losses(database, SUBSCRIBED) == [f"incident_closed {without.id} had no effect in ops"]


async def test_a_fact_that_was_never_published_is_lost(database: Database) -> None:
    await tell(database, closed(), "ops", published=False)
    (line,) = await loss_checks.losses(database, SUBSCRIBED)
    assert "was never published" in line


async def test_a_parked_fact_is_lost_until_it_is_handed_on(database: Database) -> None:
    async def park(tx: Transaction) -> None:
        await tx.run(
            "INSERT INTO bus.dead_letters (consumer, event_id, fact, reason, errors, crashes, create_time)"
            " VALUES ('ops', :id, 'incident_closed', 'it hurts', 3, 0, :now)",
            id=new_id(),
            now=tx.now,
        )

    await database.transaction(park)
    assert await loss_checks.losses(database, SUBSCRIBED) == ["incident_closed is parked for ops: it hurts"]


async def test_an_attempt_without_an_end_is_lost(database: Database) -> None:
    incident = new_id()
    await tell(database, fact("patcher", AttemptCreated(attempt="a"), reason="r", incident=incident))
    assert await loss_checks.losses(database, SUBSCRIBED) == [f"incident {incident}: 1 attempts, 0 ends"]
    await tell(database, fact("patcher", AttemptFailed(attempt="a"), reason="r", incident=incident), "decider")
    assert await loss_checks.losses(database, SUBSCRIBED) == []
    assert await loss_checks.counts(database) == {"attempt_created": 1, "attempt_failed": 1}


class FakeTimeline:
    """The timeline of ops, told fact by fact in the order of the test."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Event] = asyncio.Queue()
        self.position = 1

    async def ListTimeline(self, _request: Any, timeout: float) -> ops_pb2.ListTimelineResponse:  # noqa: N802
        return ops_pb2.ListTimelineResponse(entries=[ops_pb2.TimelineEntry(position=1, event=closed())])

    async def WatchTimeline(self, _request: Any) -> AsyncIterator[ops_pb2.WatchTimelineResponse]:  # noqa: N802
        while True:
            self.position += 1
            entry = ops_pb2.TimelineEntry(position=self.position, event=await self.coming.get())
            yield ops_pb2.WatchTimelineResponse(entry=entry)


async def test_a_story_is_heard_whole_although_its_end_is_told_first(
    database: Database, backing: BackingServices
) -> None:
    end, other = closed(), closed()
    opened = fact("ingest", IncidentOpened(type="plugin_down"), reason="it is down", incident=end.incident)
    for event in (opened, end, other):
        await tell(database, event)
    assert await loss_checks.recorded(backing.url(), lambda event: event.incident == end.incident) == {
        opened.id,
        end.id,
    }
    ops = FakeTimeline()
    timeline = TimelineFollower(SimpleNamespace(ops=ops))  # type: ignore[arg-type]
    await timeline.start()
    try:
        ops.coming.put_nowait(end)
        await timeline.wait_for("incident_closed", 5, incident=end.incident)
        whole = asyncio.create_task(timeline.wait_for_all({opened.id, end.id}, 5))
        ops.coming.put_nowait(other)
        await timeline.wait_for("incident_closed", 5, incident=other.incident)
        assert not whole.done()
        ops.coming.put_nowait(opened)
        await whole
        with pytest.raises(TimeoutError, match="1 of 2 facts"):
            await timeline.wait_for_all({end.id, "never told"}, 0.05)
    finally:
        await timeline.stop()
