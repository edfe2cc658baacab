"""What lives on the NATS server: two streams and one durable pull consumer for each service.

Rule: this file alone says how they look. Creating is idempotent and also repairs what somebody changed or deleted, so that
an empty server is no more than a slow one.
"""

from __future__ import annotations

from collections.abc import Iterable

from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError

HEAL = "HEAL"
DEAD = "DEAD"
ACK_WAIT = 30.0
DAY = 24 * 3600.0
STREAMS = (
    api.StreamConfig(
        name=HEAL,
        subjects=["heal.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=DAY,
        max_bytes=1 << 30,
        duplicate_window=120.0,
    ),
    api.StreamConfig(
        name=DEAD,
        subjects=["dead.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=30 * DAY,
        max_bytes=128 << 20,
    ),
)


async def ensure_streams(stream: JetStreamContext) -> None:
    """Makes the streams as described above, or changes them until they are."""
    for wanted in STREAMS:
        try:
            await stream.add_stream(wanted)
        except (BadRequestError, APIError) as error:
            if error.err_code != 10058:  # exists with another configuration
                raise
            await stream.update_stream(wanted)


async def ensure_consumer(stream: JetStreamContext, service: str, facts: Iterable[str]) -> None:
    """Makes the durable consumer of a service, which hears exactly these facts."""
    await stream.add_consumer(
        HEAL,
        api.ConsumerConfig(
            name=service,
            durable_name=service,
            filter_subjects=sorted(f"heal.{fact}.>" for fact in facts),
            ack_policy=api.AckPolicy.EXPLICIT,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_wait=ACK_WAIT,
            # Parking is ours (letters.py): the server must never give up silently.
            max_deliver=-1,
            max_ack_pending=512,
        ),
    )


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
