"""What lives on the NATS server: two streams and one durable pull consumer for each service.

Rule: this file alone says how they look. Creating is idempotent and also repairs what somebody changed or deleted,
so that an empty server is no more than a slow one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from libs.common.errors import Unavailable

HEAL = "HEAL"
DEAD = "DEAD"
ACK_WAIT = 30.0
# A pull request stays open so long; a lost one costs no more than this.
EXPIRY = 2.0
GRACE = 0.5
# Statuses that end one request and say nothing bad: no messages, expired.
REQUEST_ENDED = {"404", "408"}
DAY = 24 * 3600.0
STREAMS = (
    api.StreamConfig(
        name=HEAL,
        subjects=["heal.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=DAY,
        max_bytes=512 << 20,
        duplicate_window=120.0,
    ),
    api.StreamConfig(
        name=DEAD,
        subjects=["dead.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=30 * DAY,
        max_bytes=64 << 20,
    ),
)

COMPARED = ("subjects", "discard", "max_age", "max_bytes", "duplicate_window")


async def ensure_streams(stream: JetStreamContext) -> None:
    """Makes the streams as described above, or changes them until they are."""
    for wanted in STREAMS:
        try:
            found = (await stream.stream_info(str(wanted.name))).config
        except NotFoundError:
            await stream.add_stream(wanted)
            continue
        # Adding again what exists would count its size twice against the server's limit.
        if any(getattr(found, name) != getattr(wanted, name) for name in COMPARED):
            await stream.update_stream(wanted)


async def ensure_consumer(stream: JetStreamContext, service: str, facts: Iterable[str]) -> None:
    """Makes the durable consumer of a service, which is sent exactly these facts."""
    await stream.add_consumer(
        HEAL,
        api.ConsumerConfig(
            name=service,
            durable_name=service,
            filter_subjects=sorted(f"heal.{fact}.>" for fact in facts),
            ack_policy=api.AckPolicy.EXPLICIT,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_wait=ACK_WAIT,
            # Dead letters are ours (dead_letters.py): the server must never give up silently.
            max_deliver=-1,
            max_ack_pending=512,
        ),
    )


async def pull(client: Client, service: str, batch: int) -> AsyncIterator[Msg]:
    """Messages for a service as soon as they are there; ends with Unavailable when its consumer does not answer.

    The protocol is that of a pull request (a batch and an expiry, answered on an inbox). The client library's own
    `fetch` waits for a whole batch once the first message came, which would cost a healing seconds.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    request = json.dumps({"batch": batch, "expires": int(EXPIRY * 1e9)}).encode()
    outstanding, open_until = 0, 0.0
    try:
        while True:
            now = asyncio.get_running_loop().time()
            if outstanding <= 0 or now > open_until:
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{HEAL}.{service}", request, reply=inbox)
                outstanding, open_until = batch, now + EXPIRY + GRACE
            try:
                message = await subscription.next_msg(timeout=max(open_until - now, GRACE))
            except NatsTimeout:
                if not client.is_connected:
                    raise Unavailable("the connection to NATS is gone", reason="NATS_UNAVAILABLE") from None
                outstanding = 0
                continue
            status = "" if message.data else (message.headers or {}).get("Status", "")
            if status in REQUEST_ENDED:
                outstanding = 0
            elif status:
                raise Unavailable(f"the consumer of {service} answered {status}", reason="CONSUMER_UNAVAILABLE")
            else:
                outstanding -= 1
                yield message
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()


async def provision(url: str) -> None:
    """The migrate step for NATS: connects, makes the streams, leaves."""
    client = Client()

    async def ignore(_error: Exception) -> None:
        return None

    await client.connect(url, connect_timeout=5, max_reconnect_attempts=3, error_cb=ignore)
    try:
        await ensure_streams(client.jetstream(timeout=5))
    finally:
        await client.close()
