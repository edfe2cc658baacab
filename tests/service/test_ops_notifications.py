"""The word to people, through the doors of ops: facts arrive as messages, once, and failing channels lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.bus import fact
from libs.common.names import new_id
from prunella.v1 import events_pb2 as facts
from prunella.v1 import notification_pb2 as pb
from services.ops.reactions import on_fact
from services.ops.sweeps import notify
from services.ops.sweeps.notifications import escalate
from tests.service.notification_plane import NotificationPlane, escalated, settings
from tests.service.notification_sinks import Post, hang


@pytest.fixture(scope="module")
async def shared(servers: Servers) -> AsyncIterator[NotificationPlane]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    made = NotificationPlane(await plane.start())
    try:
        yield await made.start()
    finally:
        await made.stop()
        await plane.stop()
        await backing.discard()


@pytest.fixture
async def people(shared: NotificationPlane) -> AsyncIterator[NotificationPlane]:
    yield shared
    await shared.forget()


async def test_a_fact_arrives_signed_and_as_mail_and_its_way_is_shown(people: NotificationPlane) -> None:
    await people.set()
    event = escalated()
    await people.tell(event)
    found = await people.one("sent")
    (got,) = await people.posts(1)
    assert got.json["data"]["lines"][0]["event"] == event.id
    assert "a person is asked about webhook_fail_rate" in people.mail.mails[0][1].get_content()
    assert (found.facts, found.route, list(found.kinds.items())) == (1, "ops", [("incident_escalated", 1)])
    assert found.lines[0].incident == event.incident
    by_channel = {each.channel: each for each in found.deliveries}
    assert {(each.state, each.tries, each.last_error) for each in found.deliveries} == {("sent", 1, "")}
    assert by_channel["hook"].response == "200 ok"
    assert by_channel["hook"].id == got.headers["webhook-id"]
    assert by_channel["mail"].id in people.mail.mails[0][1]["Message-ID"]
    told = await people.plane.facts("notification_sent", incident=event.incident)
    assert {each.notification_sent.channel for each in told} == {"hook", "mail"}
    assert [each.name for each in await people.listed(incident=event.incident)] == [found.name]


async def test_without_a_route_it_is_only_recorded(people: NotificationPlane) -> None:
    await people.tell(escalated())
    await people.until(len, "one")
    await people.change("UPDATE ops.notifications SET due_time = create_time")
    found = await people.one("suppressed")
    assert found.detail == "no route is set; it is only recorded"
    assert (list(found.deliveries), people.hook.posts) == ([], [])


async def test_the_same_again_is_counted_and_every_fact_delivered_again_changes_nothing(
    people: NotificationPlane,
) -> None:
    await people.set()
    first = escalated()
    again = [escalated(first.plugin, incident=first.incident) for _ in range(5)]
    await people.tell(first, *again)
    (found,) = await people.until(lambda all_: all_ and all_[0].facts + all_[0].repeats == 6, "six told of")
    assert (found.facts, found.repeats) == (1, 5)
    await people.one("sent")
    ctx = people.ctx

    async def once(work: Any) -> None:
        await ctx.database.transaction(work)

    for event in (first, *again):
        await on_fact(ctx, event, once)
    await notify(ctx, ctx.clock.now())
    (same,) = await people.listed()
    assert (same.name, same.facts, same.repeats) == (found.name, 1, 5)
    assert len(people.hook.posts) == len(people.mail.mails) == 1


async def test_what_notifications_tell_of_themselves_notifies_nobody(people: NotificationPlane) -> None:
    await people.set()
    await people.tell(escalated())
    await people.one("sent")
    told = await people.plane.wait_for_fact("notification_sent", 20.0)

    async def placed() -> bool:
        rows = await people.plane.sql("SELECT 1 FROM ops.timeline WHERE event_id = CAST(:id AS uuid)", id=told.id)
        return bool(rows)

    await until(placed, 20.0)
    await notify(people.ctx, people.ctx.clock.now())
    assert len(await people.listed()) == 1


async def test_a_failing_channel_is_tried_until_it_works_and_holds_up_no_other(people: NotificationPlane) -> None:
    answers = iter([(503, "down"), (500, "still down")])
    people.hook.answer = lambda _post: next(answers, (202, "thanks"))
    await people.set()
    await people.tell(escalated())
    await until(lambda: people.mail.mails, 20.0)
    assert len(people.hook.posts) < 3
    found = await people.one("sent")
    hook = next(each for each in found.deliveries if each.channel == "hook")
    assert (hook.state, hook.tries, hook.response) == ("sent", 3, "202 thanks")
    assert {post.headers["webhook-id"] for post in people.hook.posts} == {hook.id}


async def test_a_channel_that_hangs_is_shown_as_sending_while_others_go_out(people: NotificationPlane) -> None:
    people.hook.answer = hang
    await people.set()
    await people.tell(escalated())
    await until(lambda: people.mail.mails and people.hook.posts, 20.0)
    (found,) = await people.until(lambda all_: all_ and all_[0].deliveries[1].state == "sent", "mail is sent")
    assert found.state == "sending"
    assert [(each.channel, each.state) for each in found.deliveries] == [("hook", "sending"), ("mail", "sent")]


async def test_a_refusal_is_final_and_the_next_step_is_told_at_once(people: NotificationPlane) -> None:
    people.hook.answer = lambda _post: (404, "no such hook")
    await people.set(steps=[["hook"], ["mail"]])
    event = escalated()
    await people.tell(event)
    await until(lambda: people.mail.mails, 20.0)
    found = await people.one("sent")
    hook, mail = found.deliveries
    assert (hook.state, hook.tries, hook.last_error) == ("failed", 1, "404 no such hook")
    assert (mail.state, mail.step) == ("sent", 1)
    assert people.mail.mails[0][1]["Subject"].startswith("[high] nobody answered: ")
    failed = await people.plane.wait_for_fact("notification_failed", plugin=event.plugin)
    assert failed.notification_failed.error == "404 no such hook"
    further = await people.plane.wait_for_fact("notification_escalated", plugin=event.plugin)
    assert list(further.notification_escalated.channels) == ["mail"]


async def test_when_nobody_answers_the_next_step_is_told_until_nobody_is_left(people: NotificationPlane) -> None:
    await people.set(steps=[["hook"], ["mail"]])
    await people.tell(event := escalated())
    await people.one("sent")
    assert people.mail.mails == []
    await people.change("UPDATE ops.notifications SET act_by_time = create_time")
    await until(lambda: people.mail.mails, 20.0)
    await people.one("sent")
    await people.change("UPDATE ops.notifications SET act_by_time = create_time")
    last = await people.plane.wait_for_fact("notification_escalated", 20.0, times=2, plugin=event.plugin)
    assert (last.notification_escalated.step, list(last.notification_escalated.channels)) == (2, [])
    (found,) = await people.listed()
    assert found.detail == "nobody answered, and nobody is left to ask"
    assert not found.HasField("act_by_time")
    assert len(people.hook.posts) == len(people.mail.mails) == 1


async def test_who_acknowledges_ends_the_matter_and_may_say_so_twice(people: NotificationPlane) -> None:
    await people.set(steps=[["hook"], ["mail"]])
    await people.tell(event := escalated())
    found = await people.one("sent")
    request = pb.AcknowledgeNotificationRequest(name=found.name, reason="on it", request_id=new_id())
    for _ in range(2):
        seen = (await people.ops.AcknowledgeNotification(request, timeout=10)).notification
        assert (seen.state, seen.acknowledged_by, seen.detail) == ("acknowledged", "operators/local", "on it")
    await people.change("UPDATE ops.notifications SET act_by_time = create_time")
    await notify(people.ctx, people.ctx.clock.now())
    told = await people.plane.facts("notification_acknowledged", plugin=event.plugin)
    assert [(each.actor, each.reason) for each in told] == [("operators/local", "on it")]
    assert (await people.one("acknowledged")).step == 0
    assert people.mail.mails == []


@pytest.mark.parametrize("end", [facts.IncidentMitigated(round=1), facts.IncidentClosed(resolution="healthy")])
async def test_when_the_incident_ends_nobody_is_asked_any_more(people: NotificationPlane, end: Any) -> None:
    await people.set(steps=[["hook"], ["mail"]])
    await people.tell(event := escalated())
    assert (await people.one("sent")).HasField("act_by_time")
    about: Any = {"plugin": event.plugin, "incident": event.incident, "merchant": event.merchant}
    await people.tell(fact("ingest", end, reason="well again", **about))
    (found,) = await people.until(lambda all_: all_ and not all_[0].HasField("act_by_time"), "nobody is asked")
    assert (found.state, found.detail) == ("sent", "the incident has ended; nobody is asked any more")

    async def overdue_again(tx: Any) -> int:
        # In one transaction, so that no sweep settles it in between.
        await tx.run("UPDATE ops.notifications SET act_by_time = create_time")
        return await escalate(tx, people.ctx)

    assert await people.ctx.database.transaction(overdue_again) == 0
    await notify(people.ctx, people.ctx.clock.now())
    assert not await people.plane.facts("notification_escalated", plugin=event.plugin)
    assert people.mail.mails == []


async def test_while_one_of_its_incidents_lasts_somebody_is_asked(people: NotificationPlane) -> None:
    await people.set(steps=[["hook"], ["mail"]])
    first, second = escalated(), escalated()
    await people.tell(first, second)
    assert (await people.one("sent")).facts == 2
    mitigated = facts.IncidentMitigated(round=1)
    await people.tell(fact("ingest", mitigated, reason="healed", plugin=first.plugin, incident=first.incident))

    async def ended() -> bool:
        sql = "SELECT 1 FROM ops.incidents WHERE incident = :id AND end_time IS NOT NULL"
        return bool(await people.plane.sql(sql, id=first.incident))

    await until(ended, 20.0)
    await notify(people.ctx, people.ctx.clock.now())
    assert (await people.one("sent")).HasField("act_by_time")
    await people.change("UPDATE ops.notifications SET act_by_time = create_time")
    await until(lambda: people.mail.mails, 20.0)


async def test_what_is_acknowledged_while_its_channel_fails_is_sent_no_more(people: NotificationPlane) -> None:
    people.hook.answer = lambda _post: (503, "down")
    await people.set(steps=[["hook"]])
    await people.tell(escalated())
    (found,) = await people.until(lambda all_: all_ and all_[0].deliveries and all_[0].deliveries[0].tries, "tried")
    await people.ops.AcknowledgeNotification(pb.AcknowledgeNotificationRequest(name=found.name), timeout=10)

    async def done() -> bool:
        return not await people.plane.sql("SELECT 1 FROM ops.errands WHERE state = 'pending'")

    await until(done, 30.0)
    (delivery,) = (await people.one("acknowledged")).deliveries
    assert (delivery.state, delivery.last_error) == ("suppressed", "operators/local has seen it")


async def test_at_night_only_what_is_critical_goes_out(people: NotificationPlane) -> None:
    now = datetime.now(UTC)
    night = pb.NotificationQuietHours(
        id="night",
        time_zone="UTC",
        start=f"{now - timedelta(hours=1):%H:%M}",
        end=f"{now + timedelta(hours=2):%H:%M}",
    )
    given = settings(people.hook.url, people.mail.port, quiet_hours=[night])
    given.routes[0].quiet_hours.append("night")
    await people.set(given)
    await people.tell(escalated(), critical := escalated(severity=facts.SEVERITY_CRITICAL))
    (got,) = await people.posts(1)
    assert [line["event"] for line in got.json["data"]["lines"]] == [critical.id]
    (waiting,) = await people.until(len, "the other waits", state="queued")
    assert waiting.detail == "quiet hours"
    assert waiting.due_time.ToDatetime(UTC) >= now + timedelta(hours=1, minutes=58)


async def test_a_merchant_hears_only_of_their_own(people: NotificationPlane) -> None:
    given = settings(people.hook.url, people.mail.port)
    given.routes[0].MergeFrom(pb.NotificationRoute(audience="merchants", merchants=["m1"]))
    await people.set(given)

    def healed(merchant: str, action: Any) -> facts.Event:
        told = facts.AttemptSucceeded(attempt=new_id(), action=action, to_release="1.2.3")
        return fact("ingest", told, reason="better", plugin=new_id(), incident=new_id(), merchant=merchant)

    mine = healed("m1", facts.ACTION_PATCH)
    await people.tell(
        healed("m2", facts.ACTION_PATCH), healed("m1", facts.ACTION_RESTART), escalated(merchant="m1"), mine
    )
    (got,) = await people.posts(1)
    assert [line["event"] for line in got.json["data"]["lines"]] == [mine.id]


async def test_a_flood_of_ten_thousand_facts_gives_a_handful_of_messages(people: NotificationPlane) -> None:
    await people.set()
    events = [escalated() for _ in range(10_000)]

    async def write_down(tx: Any) -> None:
        # As the reaction does; what the bus takes to bring so many is measured elsewhere.
        for event in events:
            event.time.FromDatetime(tx.now)
        await tx.run(
            "INSERT INTO ops.timeline (event_id, time, fact, plugin, merchant, incident, trace_id, payload)"
            " SELECT id, :now, 'incident_escalated', '', '', '', '', payload"
            " FROM unnest(CAST(:ids AS uuid[]), CAST(:payloads AS bytea[])) AS f(id, payload)",
            now=tx.now,
            ids=[event.id for event in events],
            payloads=[event.SerializeToString() for event in events],
        )

    await people.ctx.database.transaction(write_down)

    async def told_of() -> bool:
        rows = await people.plane.sql("SELECT coalesce(sum(facts), 0) AS count FROM ops.notifications")
        return bool(rows[0].count == len(events))

    await until(told_of, 60.0, what="every fact is told of")
    await people.change("UPDATE ops.notifications SET due_time = create_time WHERE state = 'queued'")
    found = await people.until(lambda all_: all(each.state == "sent" for each in all_), "all are sent")
    assert len(found) <= 10
    assert sum(post.json["data"]["facts"] for post in people.hook.posts) == len(events)
    assert len(people.hook.posts) == len(people.mail.mails) == len(found)
    assert max(len(post.body) for post in people.hook.posts) < 16_384


async def test_after_ops_was_away_nothing_is_missing_and_nothing_is_sent_twice(backing: BackingServices) -> None:
    plane = Plane(backing, names=["ops"])
    people = await NotificationPlane(await plane.start()).start()
    try:
        await people.set(steps=[["hook"], ["mail"]])
        await people.tell(before := escalated())
        await people.posts(1)
        await people.one("sent")
        # One is under way and its channel is down; more happens while nobody listens.
        people.hook.answer = lambda _post: (503, "down")
        await people.tell(under_way := escalated())
        await people.until(lambda all_: len(all_) == 2 and any(d.tries for d in all_[0].deliveries), "tried")
        await plane.stop_service("ops")
        tried = len(people.hook.posts)
        away = [escalated() for _ in range(18)]
        await people.tell(*away)
        people.hook.answer = lambda _post: (200, "ok")
        await plane.start_service("ops")

        def whole(found: list[pb.Notification]) -> bool:
            return sum(each.facts for each in found) == 20 and all(each.state == "sent" for each in found)

        await people.until(whole, "everything is sent")
        took = [people.hook.posts[0], *people.hook.posts[tried:]]
        assert len({post.headers["webhook-id"] for post in took}) == len(took)
        lines = [line["event"] for post in took for line in post.json["data"]["lines"]]
        assert sorted(lines) == sorted(event.id for event in (before, under_way, *away))
        assert people.mail.mails == []
    finally:
        await people.stop()
        await plane.stop()


async def test_two_replicas_tell_everything_once(backing: BackingServices) -> None:
    plane = Plane(backing, names=["ops"])
    people = await NotificationPlane(await plane.start()).start()
    try:
        await people.set()
        await plane.start_service("ops", replica=True)
        events = [escalated() for _ in range(15)]
        await asyncio.gather(*(people.tell(event) for event in events))

        def whole(found: list[pb.Notification]) -> bool:
            return sum(each.facts for each in found) == 15 and all(each.state == "sent" for each in found)

        found = await people.until(whole, "everything is sent")
        seen: list[Post] = people.hook.posts
        assert len({post.headers["webhook-id"] for post in seen}) == len(seen) == len(found)
        lines = [line["event"] for post in seen for line in post.json["data"]["lines"]]
        assert sorted(lines) == sorted(event.id for event in events)
    finally:
        await people.stop()
        await plane.stop()
