"""Channels against real receivers: what they are given, and what becomes of every answer they may give."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from libs.common.clock import ManualClock, SystemClock
from libs.common.errors import Refused, Unavailable
from services.ops.channels import delivery
from services.ops.channels.delivery import ChannelSender
from services.ops.channels.responses import DeliveryError
from services.ops.channels.secrets import SecretBox
from services.ops.notify.message import Message, trial
from services.ops.notify.model import Channel, Kind, Notice, Security, Severity
from tests.service.notification_sinks import MailServer, WebhookSink, hang

KEY = "ab" * 32
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
NOW = datetime(2026, 5, 4, 12, 0, 1, tzinfo=UTC)
NASTY = "shop-7: “<!channel> & <https://evil.example|click>” \r\nBcc: x@y.z"
LINE = Notice("e1", NOW, "incident_escalated", Severity.HIGH, NASTY, "k", plugin="p1", merchant="m1", incident="i1")
MESSAGE = Message(
    "d1", "n1", "ops", 0, f"[high] {NASTY}", Severity.HIGH, NOW, 3, {"incident_escalated": 3}, (LINE,), asks=True
)


@pytest.fixture
async def sink() -> AsyncIterator[WebhookSink]:
    made = await WebhookSink().start()
    yield made
    await made.stop()


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    made = await MailServer().start()
    yield made
    await made.stop()


@pytest.fixture
async def sender() -> AsyncIterator[ChannelSender]:
    made = ChannelSender(SystemClock(), KEY)
    yield made
    await made.stop()


def webhook(sender: ChannelSender, url: str) -> Channel:
    return Channel("hook", Kind.WEBHOOK, url=url, sealed=sender.secrets.seal(SECRET, "hook"))


def chat(sender: ChannelSender, url: str) -> Channel:
    return Channel("chat", Kind.SLACK, url="…", sealed=sender.secrets.seal(url, "chat"))


def mailbox(sender: ChannelSender, port: int, **changed: object) -> Channel:
    made = Channel(
        "mail",
        Kind.EMAIL,
        host="127.0.0.1",
        port=port,
        security=Security.NONE,
        sender="prunella@example.com",
        recipients=("a@example.com", "b@example.com"),
    )
    return replace(made, **changed)  # type: ignore[arg-type]


async def test_a_webhook_is_signed_as_the_standard_says(sink: WebhookSink, sender: ChannelSender) -> None:
    assert await sender.deliver(MESSAGE, webhook(sender, sink.url)) == "200 ok"
    (got,) = sink.posts
    # What docs/notifications.md tells a receiver to do, in its own words.
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    proof = base64.b64encode(hmac.new(b"s" * 32, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{proof}"
    assert got.headers["webhook-id"] == "d1"
    assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    data = got.json["data"]
    assert (data["facts"], data["severity"], data["lines"][0]["incident"]) == (3, "high", "i1")
    assert data["notification"] == "notifications/n1"


async def test_slack_gets_text_that_nobody_can_turn_into_markup(sink: WebhookSink, sender: ChannelSender) -> None:
    await sender.deliver(MESSAGE, chat(sender, sink.url))
    (got,) = sink.posts
    assert "webhook-signature" not in got.headers
    said = json.dumps(got.json["blocks"][1:])
    assert "<!channel>" not in said
    assert "&lt;!channel&gt; &amp;" in said
    assert "prunella notifications ack n1" in said
    assert "<!channel>" not in got.json["text"]


async def test_a_flood_of_lines_stays_within_slacks_limits(sink: WebhookSink, sender: ChannelSender) -> None:
    lines = tuple(replace(LINE, event=str(n), headline="word " * 59) for n in range(20))
    await sender.deliver(replace(MESSAGE, lines=lines, facts=10_000), chat(sender, sink.url))
    blocks = sink.posts[0].json["blocks"]
    assert len(blocks) < 50
    assert all(len(block["text"]["text"]) <= 3000 for block in blocks if "text" in block)
    assert len(blocks[0]["text"]["text"]) <= 150


async def test_mail_goes_to_everybody_with_an_id_that_stays(server: MailServer, sender: ChannelSender) -> None:
    for _ in range(2):
        assert "queued as" in await sender.deliver(MESSAGE, mailbox(sender, server.port))
    (to, mail), (_, again) = server.mails
    assert to == ["a@example.com", "b@example.com"]
    assert mail["Message-ID"] == again["Message-ID"] == "<d1@example.com>"
    assert "Bcc" not in mail
    assert mail["Subject"].startswith("[high] shop-7")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "… and 2 more: 3 × incident escalated" in mail.get_content()


async def test_mail_with_a_password_and_what_a_wrong_one_leads_to(server: MailServer, sender: ChannelSender) -> None:
    server.password = "right"
    channel = mailbox(sender, server.port, username="u", sealed=sender.secrets.seal("right", "mail"))
    assert "queued" in await sender.deliver(MESSAGE, channel)
    with pytest.raises(DeliveryError) as wrong:
        await sender.deliver(MESSAGE, replace(channel, sealed=sender.secrets.seal("hunter2", "mail")))
    assert wrong.value.permanent
    assert "535" in wrong.value.detail
    assert "hunter2" not in wrong.value.detail


async def test_starttls_is_demanded_where_it_is_set(server: MailServer, sender: ChannelSender) -> None:
    with pytest.raises(DeliveryError) as wrong:
        await sender.deliver(MESSAGE, mailbox(sender, server.port, security=Security.STARTTLS))
    assert not wrong.value.permanent
    assert server.mails == []


@pytest.mark.parametrize(
    ("replies", "refused"),
    [
        ({"RCPT": "550 no such user"}, True),
        ({"RCPT": "450 try later"}, False),
        ({"MAIL": "553 not you"}, True),
        ({"DATA": "554 spam"}, True),
        ({"DATA": "451 disk full"}, False),
        ({"EHLO": "421 shutting down", "HELO": "421 shutting down"}, False),
    ],
)
async def test_what_a_mail_server_refuses_for_good_and_for_now(
    server: MailServer, sender: ChannelSender, replies: dict[str, str], refused: bool
) -> None:
    server.replies = replies
    with pytest.raises(DeliveryError) as wrong:
        await sender.deliver(MESSAGE, mailbox(sender, server.port))
    assert wrong.value.permanent is refused
    assert any(answer[:3] in wrong.value.detail for answer in replies.values())


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (301, True), (404, True), (410, True), (408, False), (429, False), (503, False)],
)
async def test_what_a_webhook_refuses_for_good_and_for_now(
    sink: WebhookSink, sender: ChannelSender, status: int, refused: bool
) -> None:
    sink.answer = lambda _post: (status, "no\x1b[31m\nthanks" + "!" * 10_000)
    sink.headers = "location: http://169.254.169.254/\r\n"
    with pytest.raises(DeliveryError) as wrong:
        await sender.deliver(MESSAGE, webhook(sender, sink.url))
    assert wrong.value.permanent is refused
    assert wrong.value.detail.startswith(f"{status} no [31m thanks!")
    assert len(wrong.value.detail) < 400
    assert len(sink.posts) == 1


async def test_a_receiver_that_asks_for_a_pause_gets_it(sink: WebhookSink) -> None:
    clock = ManualClock(NOW)
    sender = ChannelSender(clock, KEY)
    sink.answer, sink.headers = lambda _post: (429, "slowly"), "retry-after: 60\r\n"
    channel = webhook(sender, sink.url)
    with pytest.raises(DeliveryError):
        await sender.deliver(MESSAGE, channel)
    assert sender.blocked(channel) == "the channel asked for a pause"
    clock.advance(61)
    assert sender.blocked(channel) == ""
    await sender.stop()


async def test_an_address_where_nobody_listens_is_tried_again_and_never_told(sender: ChannelSender) -> None:
    secret = "http://127.0.0.1:1/services/T0/B0/token"
    with pytest.raises(DeliveryError) as wrong:
        await sender.deliver(MESSAGE, chat(sender, secret))
    assert not wrong.value.permanent
    assert "token" not in wrong.value.detail


async def test_a_channel_that_hangs_is_left_after_its_time_and_holds_up_no_other(
    sink: WebhookSink, server: MailServer, sender: ChannelSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT", 0.5)
    sink.answer = hang
    channel = webhook(sender, sink.url)
    tries = [asyncio.create_task(sender.deliver(MESSAGE, channel)) for _ in range(delivery.IN_FLIGHT)]
    await asyncio.sleep(0)
    assert sender.blocked(channel) == "the channel is busy with other messages"
    assert sender.blocked(mailbox(sender, server.port)) == ""
    assert "queued" in await sender.deliver(MESSAGE, mailbox(sender, server.port))
    for ended in await asyncio.gather(*tries, return_exceptions=True):
        assert isinstance(ended, DeliveryError)
        assert "no answer" in ended.detail
    assert sender.blocked(channel) == ""


async def test_a_channel_that_keeps_failing_is_spared_and_a_new_address_is_not(
    sink: WebhookSink, sender: ChannelSender
) -> None:
    sink.answer = lambda _post: (503, "down")
    channel = webhook(sender, sink.url)
    for _ in range(3):
        with pytest.raises(DeliveryError):
            await sender.deliver(MESSAGE, channel)
    assert "spared" in sender.blocked(channel)
    with pytest.raises(Unavailable):
        await sender.deliver(MESSAGE, channel)
    assert len(sink.posts) == 3
    assert sender.blocked(replace(channel, url=f"{sink.url}/other")) == ""
    # A person who asks whether it works gets an answer all the same.
    with pytest.raises(DeliveryError, match="503 down"):
        await sender.send(trial("t1", "hook", "operators/ada", NOW), channel)


async def test_refusals_do_not_open_the_breaker(sink: WebhookSink, sender: ChannelSender) -> None:
    sink.answer = lambda _post: (404, "gone")
    channel = webhook(sender, sink.url)
    for _ in range(5):
        with pytest.raises(DeliveryError, match="404"):
            await sender.deliver(MESSAGE, channel)
    assert sender.blocked(channel) == ""


async def test_a_sealed_secret_opens_with_its_key_for_its_channel_alone() -> None:
    seal = SecretBox(KEY)
    sealed = seal.seal("hunter2", "mail")
    assert "hunter2" not in base64.b64decode(sealed).decode("latin-1")
    assert seal.seal("hunter2", "mail") != sealed
    assert seal.open(sealed, "mail") == "hunter2"
    assert seal.open("", "mail") == ""
    for other, channel in ((SecretBox("cd" * 32), "mail"), (seal, "other")):
        with pytest.raises(Refused, match="type it again"):
            other.open(sealed, channel)
