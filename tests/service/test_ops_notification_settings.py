"""Who is told of what: settings change whole or not at all, secrets stay secret, channels are tried, lists asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.errors import Invalid, NotFound, Stale
from libs.common.names import new_id
from prunella.v1 import notification_pb2 as pb
from services.ops.sweeps import delete_old_notifications
from tests.service.notification_plane import SECRET, NotificationPlane, escalated, settings


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


async def test_a_test_of_a_channel_says_what_the_other_side_said(people: NotificationPlane) -> None:
    await people.set()
    answer = await people.ops.TestChannel(pb.TestChannelRequest(channel="hook"), timeout=20)
    assert (answer.delivered, answer.response) == (True, "200 ok")
    (got,) = people.hook.posts
    assert (got.json["type"], got.headers["webhook-id"]) == ("prunella.test", answer.id)
    people.mail.replies["RCPT"] = "550 no such user"
    request = pb.TestChannelRequest(channel="mail", request_id=new_id())
    first = await people.ops.TestChannel(request, timeout=20)
    assert not first.delivered
    assert "550" in first.response
    assert (await people.ops.TestChannel(request, timeout=20)).id == first.id
    with pytest.raises(NotFound, match="known: hook, mail"):
        await people.ops.TestChannel(pb.TestChannelRequest(channel="pager"), timeout=20)
    assert await people.listed() == []


async def test_secrets_are_never_shown_kept_in_the_open_or_told(people: NotificationPlane) -> None:
    made = settings(people.hook.url, people.mail.port)
    made.channels[1].email.MergeFrom(pb.EmailChannel(username="u", password="hunter2"))
    made.channels.add(id="chat", slack=pb.SlackChannel(url="https://hooks.slack.com/services/T0/B0/token"))
    shown = await people.set(made)
    assert shown.channels[0].webhook.secret_set
    assert shown.channels[1].email.password_set
    assert shown.channels[2].slack.url == "https://hooks.slack.com/…"
    # What is shown may be sent back as it is: nothing changes.
    again = await people.set(shown)
    assert again.version == shown.version
    again.channels[1].email.recipients.append("c@d.example")
    assert (await people.set(again)).version == shown.version + 1
    told = await people.plane.facts("notification_settings_changed")
    assert told[-1].reason == "a test"
    kept = await people.plane.sql("SELECT CAST(document AS text) AS document FROM ops.notification_settings")
    for text in (str(shown), str(told), kept[0].document):
        for secret in (SECRET, SECRET.removeprefix("whsec_"), "hunter2", "token"):
            assert secret not in text
    # The password does not travel to another host.
    again.etag = ""
    again.channels[1].email.host = "elsewhere.example.com"
    again.channels[1].email.security = "tls"
    with pytest.raises(Invalid, match="typed again") as refused:
        await people.set(again)
    assert refused.value.field == "channels[1].password"


async def test_settings_change_as_a_whole_or_not_at_all(people: NotificationPlane) -> None:
    first = await people.set()
    wrong = settings(people.hook.url, people.mail.port)
    wrong.routes[0].facts.append("nonsense")
    wrong.routes[0].steps[0].channels.append("pager")
    with pytest.raises(Invalid) as refused:
        await people.set(wrong)
    assert set(refused.value.metadata) >= {"routes[0].facts", "routes[0].steps[0].channels"}
    stale = settings(people.hook.url, people.mail.port, steps=[["mail"]], etag=str(first.version - 1))
    with pytest.raises(Stale):
        await people.set(stale)
    assert (await people.ops.GetNotificationSettings(pb.GetNotificationSettingsRequest(), timeout=10)).settings == first
    request = pb.UpdateNotificationSettingsRequest(
        settings=settings(people.hook.url, people.mail.port, steps=[["mail"]]), reason="mail only", request_id=new_id()
    )
    versions = [(await people.ops.UpdateNotificationSettings(request, timeout=10)).settings.version for _ in range(2)]
    assert versions == [first.version + 1] * 2
    with pytest.raises(Invalid, match="reason"):
        await people.ops.UpdateNotificationSettings(
            pb.UpdateNotificationSettingsRequest(settings=request.settings), timeout=10
        )


async def test_pages_and_questions_that_make_no_sense(people: NotificationPlane) -> None:
    await people.set()
    for number in range(3):
        await people.change(
            "INSERT INTO ops.notifications SELECT gen_random_uuid(), 'r', false, 'sent', '', 1, 1, 0, '{}', '[]', '{}',"
            f" '{{}}', '{{}}', 0, timestamptz '2026-01-0{number + 1}', now(), NULL, NULL, ''"
        )
    first = await people.ops.ListNotifications(pb.ListNotificationsRequest(page_size=2, route="r"), timeout=10)
    rest = await people.ops.ListNotifications(
        pb.ListNotificationsRequest(page_size=2, route="r", page_token=first.next_page_token), timeout=10
    )
    days = [each.create_time.ToDatetime().day for each in (*first.notifications, *rest.notifications)]
    assert (days, rest.next_page_token) == ([3, 2, 1], "")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"state": "lost"}, "state"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": first.next_page_token}, "page_token"),
        ({"plugin": "incidents/x"}, "plugin"),
    ]
    for filters, field in wrong:
        with pytest.raises(Invalid) as refused:
            await people.listed(**filters)
        assert refused.value.field == field
    with pytest.raises(NotFound):
        await people.ops.GetNotification(pb.GetNotificationRequest(name=f"notifications/{new_id()}"), timeout=10)
    with pytest.raises(Invalid):
        await people.ops.AcknowledgeNotification(pb.AcknowledgeNotificationRequest(name="notifications/x"), timeout=10)


async def test_what_is_old_is_forgotten_and_what_still_waits_is_not(people: NotificationPlane) -> None:
    columns = "'{}', '[]', '{}', '{}', '{}', 0, timestamptz '2020-01-01', now()"
    for state, act_by in (("sent", "NULL"), ("sent", "now()"), ("queued", "NULL"), ("acknowledged", "NULL")):
        await people.change(
            f"INSERT INTO ops.notifications SELECT gen_random_uuid(), 'r', false, '{state}', '', 1, 1, 0, {columns},"
            f" {act_by}, NULL, ''"
        )
    now = people.ctx.clock.now()
    assert await delete_old_notifications(people.ctx, now) == 2
    rows = await people.plane.sql("SELECT state FROM ops.notifications WHERE route = 'r'")
    assert {row.state for row in rows} <= {"sent", "queued", "suppressed"}
    assert len(rows) == 2


async def test_a_message_sent_but_not_written_down_comes_again_under_its_id(people: NotificationPlane) -> None:
    await people.set(steps=[["hook"]])
    await people.tell(escalated())
    await people.one("sent")
    # As after a crash between the two: the errand's lease has run out, and the delivery knows nothing.
    await people.change("UPDATE ops.deliveries SET state = 'sending', send_time = NULL")
    await people.change("UPDATE ops.errands SET state = 'pending', lease_expire_time = NULL, due_time = create_time")
    await until(lambda: len(people.hook.posts) == 2, 20.0)
    assert len({post.headers["webhook-id"] for post in people.hook.posts}) == 1
    assert (await people.one("sent")).deliveries[0].tries == 2
