"""ops through its doors: facts become a timeline without holes, dead letters are shown and sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.bus import Bus, fact
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.errors import Invalid, NotFound
from libs.common.names import new_id
from libs.common.telemetry import use_traceparent
from prunella.v1 import events_pb2 as facts
from prunella.v1 import ops_pb2
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from services.ops.reactions import on_fact

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[Plane]:
    plane = Plane(backing, names=["ops"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()


@pytest.fixture(scope="module")
async def shared(servers: Servers) -> AsyncIterator[Plane]:
    """For tests that leave nothing behind."""
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()
        await backing.discard()


def ops(plane: Plane) -> Any:
    return OpsServiceStub(plane.channel("ops"))


class Teller:
    """Tells facts as ingest does."""

    def __init__(self, plane: Plane) -> None:
        clock = SystemClock()
        self.database = Database(plane.backing.url("ingest"), clock=clock, pool_size=4)
        self.bus = Bus(plane.backing.nats_url, self.database, "ingest", clock)

    async def tell(self, *events: facts.Event, trace: str = TRACE) -> None:
        async def work(tx: Any) -> None:
            for event in events:
                tx.record(event)

        with use_traceparent(f"00-{trace}-b7ad6b7169203331-01"):
            await self.database.transaction(work)


@pytest.fixture
async def teller(alone: Plane) -> AsyncIterator[Teller]:
    made = Teller(alone)
    await made.bus.start()
    yield made
    await made.bus.stop()
    await made.database.close()


def enrolled(plugin: str, label: str) -> facts.Event:
    joined = facts.PluginEnrolled(package="checkout", release="1.2.0", label=label)
    return fact("ingest", joined, reason="a token was used", plugin=plugin)


def opened(plugin: str, incident: str) -> facts.Event:
    broke = facts.IncidentOpened(type="webhook_fail_rate", severity=facts.SEVERITY_MEDIUM, round=1)
    broke.evidence.summary = "webhook_fail_rate 0.60 > 0.30"
    return fact("ingest", broke, reason="threshold", plugin=plugin, incident=incident)


async def listed(plane: Plane, **filters: Any) -> list[ops_pb2.TimelineEntry]:
    answer = await ops(plane).ListTimeline(ops_pb2.ListTimelineRequest(**filters), timeout=5)
    return list(answer.entries)


async def until_listed(plane: Plane, count: int, **filters: Any) -> list[ops_pb2.TimelineEntry]:
    async def look() -> list[ops_pb2.TimelineEntry] | None:
        entries = await listed(plane, **filters)
        return entries if len(entries) >= count else None

    found: list[ops_pb2.TimelineEntry] = await until(look, 20, what=f"{count} entries")
    return found


async def test_a_fact_told_anywhere_appears_once_with_headline_label_and_trace(alone: Plane, teller: Teller) -> None:
    plugin, incident = new_id(), new_id()
    await teller.tell(enrolled(plugin, "shop-7"))
    await until_listed(alone, 1)
    await teller.tell(opened(plugin, incident))
    newest, oldest = await until_listed(alone, 2)
    assert (oldest.fact, newest.fact) == ("plugin_enrolled", "incident_opened")
    assert newest.headline.startswith("shop-7 broke: webhook_fail_rate, medium")
    assert newest.trace_id == TRACE
    assert newest.position > oldest.position
    assert newest.event.incident == incident


async def test_a_fact_delivered_twice_has_one_row(alone: Plane, teller: Teller) -> None:
    event = opened(new_id(), new_id())
    await teller.tell(event)
    await until_listed(alone, 1)
    ctx = alone.services["ops"].ctx

    async def once(work: Any) -> None:
        await ctx.database.transaction(work)

    # Past the inbox: the row's own key holds, too.
    await on_fact(ctx, event, once)
    assert await ctx.database.transaction(lambda tx: tx.value("SELECT count(*) FROM ops.timeline")) == 1


async def test_filters_name_plugin_incident_and_facts(alone: Plane, teller: Teller) -> None:
    plugin, other, incident = new_id(), new_id(), new_id()
    await teller.tell(enrolled(plugin, "shop-1"), enrolled(other, "shop-2"), opened(plugin, incident))
    await until_listed(alone, 3)
    assert {entry.fact for entry in await listed(alone, plugin=plugin)} == {"plugin_enrolled", "incident_opened"}
    assert [entry.event.plugin for entry in await listed(alone, plugin=f"plugins/{other}")] == [other]
    assert [entry.fact for entry in await listed(alone, incident=f"incidents/{incident}")] == ["incident_opened"]
    assert len(await listed(alone, facts=["plugin_enrolled"])) == 2


async def test_pages_follow_each_other_without_repeat_or_hole(alone: Plane, teller: Teller) -> None:
    await teller.tell(*(enrolled(new_id(), f"shop-{number}") for number in range(7)))
    await until_listed(alone, 7)
    seen: list[int] = []
    token = ""
    while True:
        page = await ops(alone).ListTimeline(ops_pb2.ListTimelineRequest(page_size=3, page_token=token), timeout=5)
        seen += [entry.position for entry in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 7


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"facts": ["nonsense"]}, "facts"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"plugin": "incidents/x"}, "plugin"),
    ],
)
async def test_bad_questions_name_the_field(shared: Plane, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await listed(shared, **wrong)
    assert refused.value.field == field


async def take(stream: Any, count: int, timeout: float = 15.0) -> list[ops_pb2.TimelineEntry]:
    async def collect() -> list[ops_pb2.TimelineEntry]:
        found = []
        async for answer in stream:
            found.append(answer.entry)
            if len(found) == count:
                break
        return found

    return await asyncio.wait_for(collect(), timeout)


async def test_a_watcher_resumes_where_it_stopped(alone: Plane, teller: Teller) -> None:
    await teller.tell(enrolled(new_id(), "before"))
    (before,) = await until_listed(alone, 1)
    stream = ops(alone).WatchTimeline(ops_pb2.WatchTimelineRequest(after_position=before.position))
    taking = asyncio.create_task(take(stream, 2))
    await teller.tell(enrolled(new_id(), "first"))
    await teller.tell(enrolled(new_id(), "second"))
    live = await taking
    assert {entry.event.plugin_enrolled.label for entry in live} == {"first", "second"}
    resumed = ops(alone).WatchTimeline(ops_pb2.WatchTimelineRequest(after_position=live[0].position))
    assert [entry.position for entry in await take(resumed, 1)] == [live[1].position]


async def test_a_watcher_without_a_position_sees_only_what_happens_next(alone: Plane, teller: Teller) -> None:
    await teller.tell(enrolled(new_id(), "history"))
    await until_listed(alone, 1)
    taking = asyncio.create_task(take(ops(alone).WatchTimeline(ops_pb2.WatchTimelineRequest()), 1))

    async def told_until_seen() -> bool:
        await teller.tell(enrolled(new_id(), "news"))
        return taking.done()

    await until(told_until_seen, 15)
    assert [entry.event.plugin_enrolled.label for entry in taking.result()] == ["news"]


async def test_no_watcher_misses_a_row_whose_transaction_commits_late(alone: Plane, teller: Teller) -> None:
    early, late = opened(new_id(), new_id()), opened(new_id(), new_id())
    ctx = alone.services["ops"].ctx
    written, go = asyncio.Event(), asyncio.Event()

    async def slowly(work: Any) -> None:
        async def held(tx: Any) -> None:
            await work(tx)
            written.set()
            await go.wait()

        await ctx.database.transaction(held)

    stream = ops(alone).WatchTimeline(ops_pb2.WatchTimelineRequest(after_position=0))
    taking = asyncio.create_task(take(stream, 2))
    early.time.FromDatetime(ctx.clock.now())
    first = asyncio.create_task(on_fact(ctx, early, slowly))
    await written.wait()
    # Written after `early`, visible before it.
    await teller.tell(late)
    await until_listed(alone, 1)
    go.set()
    await first
    seen = await taking
    assert [entry.event.id for entry in seen] == [late.id, early.id]
    assert seen[0].position < seen[1].position


async def test_dead_letters_are_shown_and_sent_again_once(alone: Plane) -> None:
    event = new_id()
    owner = Database(alone.backing.url("patcher"), clock=SystemClock(), pool_size=1)
    await owner.transaction(
        lambda tx: tx.run(
            "INSERT INTO bus.dead_letters (consumer, event_id, fact, reason, errors, crashes, create_time) "
            "VALUES ('patcher', CAST(:id AS uuid), 'decision_made', 'ValueError: no', 8, 0, :now)",
            id=event,
            now=tx.now,
        )
    )
    await owner.close()
    answer = await ops(alone).ListDeadLetters(ops_pb2.ListDeadLettersRequest(), timeout=5)
    assert [(letter.consumer, letter.event_id, letter.errors) for letter in answer.dead_letters] == [
        ("patcher", event, 8)
    ]
    request = ops_pb2.RedriveDeadLetterRequest(consumer="patcher", event_id=event, request_id=new_id())
    await ops(alone).RedriveDeadLetter(request, timeout=5)
    assert not (await ops(alone).ListDeadLetters(ops_pb2.ListDeadLettersRequest(), timeout=5)).dead_letters
    # A repeat, such as a retry of a lost answer, is the same wish.
    await ops(alone).RedriveDeadLetter(request, timeout=5)
    unknown = ops_pb2.RedriveDeadLetterRequest(consumer="patcher", event_id=new_id(), request_id=new_id())
    with pytest.raises(NotFound):
        await ops(alone).RedriveDeadLetter(unknown, timeout=5)
    with pytest.raises(Invalid):
        await ops(alone).RedriveDeadLetter(ops_pb2.RedriveDeadLetterRequest(event_id="nonsense"), timeout=5)


async def test_nobody_reads_without_a_credential(shared: Plane) -> None:
    async with grpc.aio.insecure_channel(shared.addresses["ops"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await OpsServiceStub(channel).ListTimeline(ops_pb2.ListTimelineRequest(), timeout=5)  # type: ignore[misc]
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_two_replicas_make_one_timeline(alone: Plane, teller: Teller) -> None:
    await teller.tell(enrolled(new_id(), "first"))
    (first,) = await until_listed(alone, 1)
    other = Plane(alone.backing, names=["ops"], key=alone.key)
    try:
        await other.start()
        request = ops_pb2.WatchTimelineRequest(after_position=first.position)
        watches = [asyncio.create_task(take(ops(plane).WatchTimeline(request), 50, 30)) for plane in (alone, other)]
        for number in range(10):
            await teller.tell(*(enrolled(new_id(), f"shop-{number}-{place}") for place in range(5)))
        for watch in watches:
            assert [entry.position for entry in await watch] == list(range(2, 52))
        entries = await until_listed(other, 50)
        assert len({entry.event.id for entry in entries}) == 50
    finally:
        await other.stop()
