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
from services.ops.channels import post as posting
from services.ops.channels.answers import NotTaken
from services.ops.channels.post import Post
from services.ops.channels.sealing import Seal
from services.ops.notify.message import Message, trial
from services.ops.notify.model import Channel, Kind, Notice, Security, Severity
from tests.service.people_sinks import MailServer, WebhookSink, hang

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
async def post() -> AsyncIterator[Post]:
    made = Post(SystemClock(), KEY)
    yield made
    await made.stop()


def webhook(post: Post, url: str) -> Channel:
    return Channel("hook", Kind.WEBHOOK, url=url, sealed=post.seal.seal(SECRET, "hook"))


def chat(post: Post, url: str) -> Channel:
    return Channel("chat", Kind.SLACK, url="…", sealed=post.seal.seal(url, "chat"))


def mailbox(post: Post, port: int, **changed: object) -> Channel:
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


async def test_a_webhook_is_signed_as_the_standard_says(sink: WebhookSink, post: Post) -> None:
    assert await post.bring(MESSAGE, webhook(post, sink.url)) == "200 ok"
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


async def test_slack_gets_text_that_nobody_can_turn_into_markup(sink: WebhookSink, post: Post) -> None:
    await post.bring(MESSAGE, chat(post, sink.url))
    (got,) = sink.posts
    assert "webhook-signature" not in got.headers
    said = json.dumps(got.json["blocks"][1:])
    assert "<!channel>" not in said
    assert "&lt;!channel&gt; &amp;" in said
    assert "prunella notifications ack n1" in said
    assert "<!channel>" not in got.json["text"]


async def test_a_flood_of_lines_stays_within_slacks_limits(sink: WebhookSink, post: Post) -> None:
    lines = tuple(replace(LINE, event=str(n), headline="word " * 59) for n in range(20))
    await post.bring(replace(MESSAGE, lines=lines, facts=10_000), chat(post, sink.url))
    blocks = sink.posts[0].json["blocks"]
    assert len(blocks) < 50
    assert all(len(block["text"]["text"]) <= 3000 for block in blocks if "text" in block)
    assert len(blocks[0]["text"]["text"]) <= 150


async def test_mail_goes_to_everybody_with_an_id_that_stays(server: MailServer, post: Post) -> None:
    for _ in range(2):
        assert "queued as" in await post.bring(MESSAGE, mailbox(post, server.port))
    (to, mail), (_, again) = server.mails
    assert to == ["a@example.com", "b@example.com"]
    assert mail["Message-ID"] == again["Message-ID"] == "<d1@example.com>"
    assert "Bcc" not in mail
    assert mail["Subject"].startswith("[high] shop-7")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "… and 2 more: 3 × incident escalated" in mail.get_content()


async def test_mail_with_a_password_and_what_a_wrong_one_leads_to(server: MailServer, post: Post) -> None:
    server.password = "right"
    channel = mailbox(post, server.port, username="u", sealed=post.seal.seal("right", "mail"))
    assert "queued" in await post.bring(MESSAGE, channel)
    with pytest.raises(NotTaken) as wrong:
        await post.bring(MESSAGE, replace(channel, sealed=post.seal.seal("hunter2", "mail")))
    assert wrong.value.refused
    assert "535" in wrong.value.said
    assert "hunter2" not in wrong.value.said


async def test_starttls_is_demanded_where_it_is_set(server: MailServer, post: Post) -> None:
    with pytest.raises(NotTaken) as wrong:
        await post.bring(MESSAGE, mailbox(post, server.port, security=Security.STARTTLS))
    assert not wrong.value.refused
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
    server: MailServer, post: Post, replies: dict[str, str], refused: bool
) -> None:
    server.replies = replies
    with pytest.raises(NotTaken) as wrong:
        await post.bring(MESSAGE, mailbox(post, server.port))
    assert wrong.value.refused is refused
    assert any(answer[:3] in wrong.value.said for answer in replies.values())


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (301, True), (404, True), (410, True), (408, False), (429, False), (503, False)],
)
async def test_what_a_webhook_refuses_for_good_and_for_now(
    sink: WebhookSink, post: Post, status: int, refused: bool
) -> None:
    sink.answer = lambda _post: (status, "no\x1b[31m\nthanks" + "!" * 10_000)
    sink.headers = "location: http://169.254.169.254/\r\n"
    with pytest.raises(NotTaken) as wrong:
        await post.bring(MESSAGE, webhook(post, sink.url))
    assert wrong.value.refused is refused
    assert wrong.value.said.startswith(f"{status} no [31m thanks!")
    assert len(wrong.value.said) < 400
    assert len(sink.posts) == 1


async def test_a_receiver_that_asks_for_a_pause_gets_it(sink: WebhookSink) -> None:
    clock = ManualClock(NOW)
    post = Post(clock, KEY)
    sink.answer, sink.headers = lambda _post: (429, "slowly"), "retry-after: 60\r\n"
    channel = webhook(post, sink.url)
    with pytest.raises(NotTaken):
        await post.bring(MESSAGE, channel)
    assert post.held(channel) == "the channel asked for a pause"
    clock.advance(61)
    assert post.held(channel) == ""
    await post.stop()


async def test_an_address_where_nobody_listens_is_tried_again_and_never_told(post: Post) -> None:
    secret = "http://127.0.0.1:1/services/T0/B0/token"
    with pytest.raises(NotTaken) as wrong:
        await post.bring(MESSAGE, chat(post, secret))
    assert not wrong.value.refused
    assert "token" not in wrong.value.said


async def test_a_channel_that_hangs_is_left_after_its_time_and_holds_up_no_other(
    sink: WebhookSink, server: MailServer, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "TRY", 0.5)
    sink.answer = hang
    channel = webhook(post, sink.url)
    tries = [asyncio.create_task(post.bring(MESSAGE, channel)) for _ in range(posting.IN_HAND)]
    await asyncio.sleep(0)
    assert post.held(channel) == "the channel is busy with other messages"
    assert post.held(mailbox(post, server.port)) == ""
    assert "queued" in await post.bring(MESSAGE, mailbox(post, server.port))
    for ended in await asyncio.gather(*tries, return_exceptions=True):
        assert isinstance(ended, NotTaken)
        assert "no answer" in ended.said
    assert post.held(channel) == ""


async def test_a_channel_that_keeps_failing_is_spared_and_a_new_address_is_not(sink: WebhookSink, post: Post) -> None:
    sink.answer = lambda _post: (503, "down")
    channel = webhook(post, sink.url)
    for _ in range(3):
        with pytest.raises(NotTaken):
            await post.bring(MESSAGE, channel)
    assert "spared" in post.held(channel)
    with pytest.raises(Unavailable):
        await post.bring(MESSAGE, channel)
    assert len(sink.posts) == 3
    assert post.held(replace(channel, url=f"{sink.url}/other")) == ""
    # A person who asks whether it works gets an answer all the same.
    with pytest.raises(NotTaken, match="503 down"):
        await post.speak(trial("t1", "hook", "operators/ada", NOW), channel)


async def test_refusals_do_not_open_the_breaker(sink: WebhookSink, post: Post) -> None:
    sink.answer = lambda _post: (404, "gone")
    channel = webhook(post, sink.url)
    for _ in range(5):
        with pytest.raises(NotTaken, match="404"):
            await post.bring(MESSAGE, channel)
    assert post.held(channel) == ""


async def test_a_sealed_secret_opens_with_its_key_for_its_channel_alone() -> None:
    seal = Seal(KEY)
    sealed = seal.seal("hunter2", "mail")
    assert "hunter2" not in base64.b64decode(sealed).decode("latin-1")
    assert seal.seal("hunter2", "mail") != sealed
    assert seal.open(sealed, "mail") == "hunter2"
    assert seal.open("", "mail") == ""
    for other, channel in ((Seal("cd" * 32), "mail"), (seal, "other")):
        with pytest.raises(Refused, match="type it again"):
            other.open(sealed, channel)
