"""The connection of one service to NATS, its relay of facts, and wake-ups between replicas.

Rule: rows whose `publish_time` is empty are published, first from memory right after the commit, then from the
table for whatever that missed. The row's id is the message id, so a repeat is dropped by the server or, later, by
the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from libs.common.bus.streams import HEAL, ensure_streams
from libs.common.cancellation import cancel_and_wait
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errors import Problem, Unavailable
from libs.common.facts import RecordedFact, fact_name, subject
from prunella.v1.events_pb2 import Event

log = structlog.get_logger()

MAX_PENDING = 20_000  # facts held for the fast path; beyond that the table has them anyway
BATCH = 512
ACK_SECONDS = 3.0  # seconds for acknowledgements of one batch
CONNECT_SECONDS = 4.0  # seconds for one try to connect
SWEEP_SECONDS = 1.0  # seconds between looks into the table

UNPUBLISHED = """
SELECT payload, traceparent FROM bus.facts
WHERE source = :source AND publish_time IS NULL AND time <= :before ORDER BY time LIMIT :batch
"""
PUBLISHED = "UPDATE bus.facts SET publish_time = :now WHERE id = ANY(CAST(:ids AS uuid[])) AND publish_time IS NULL"


class Bus:
    """One service on the bus. `start` returns at once; a server that is away is tried again until it answers."""

    def __init__(self, url: str, database: Database, source: str, clock: Clock) -> None:
        self.name = "bus"
        self.url = url
        self.database = database
        self.source = source
        self.clock = clock
        self.client = Client()
        self._pending: list[RecordedFact] = []
        self._recorded = asyncio.Event()
        self._wakes: list[Callable[[str], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        database.listeners.append(self._on_recorded)

    @property
    def stream(self) -> JetStreamContext:
        """JetStream over this connection."""
        return self.client.jetstream(timeout=3)

    async def start(self) -> None:
        """Begins to connect and to relay."""
        self._tasks = [
            asyncio.create_task(loop, name=f"{self.source} bus") for loop in (self._connect(), self._relay())
        ]

    async def stop(self) -> None:
        """Relays what is left for a moment, then closes; the table keeps the rest for the next start."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await self._publish_pending()
        await cancel_and_wait(self._tasks)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await self.client.close()

    async def ping(self) -> None:
        """Asks the server for HEAL. Raises Unavailable."""
        try:
            if not self.client.is_connected:
                raise Unavailable(f"no connection to NATS at {self._address()}", reason="NATS_UNAVAILABLE")
            await self.stream.stream_info(HEAL)
        except (TimeoutError, NatsError, OSError) as error:
            raise Unavailable(
                f"NATS at {self._address()} does not answer: {error}", reason="NATS_UNAVAILABLE"
            ) from error

    def on_wake(self, call: Callable[[str], None]) -> None:
        """Has `call(plugin)` run when any replica asks to look at a plugin's commands."""
        self._wakes.append(call)

    async def wake(self, plugin: str) -> None:
        """Asks every replica to look at a plugin's commands; a hint that may be lost."""
        with contextlib.suppress(NatsError, OSError):
            if self.client.is_connected:
                await self.client.publish(f"wake.{plugin}")
                await self.client.flush(1)

    def announce_dead_letter(self, consumer: str, event: Event, reason: str) -> None:
        """Tells listeners of `dead.>` that a consumer gave a fact up; a hint, since `bus.dead_letters` has it."""
        recorded = headers(event, "") | {"Prunella-Reason": " ".join(reason.split())[:200]}

        async def publish() -> None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                if not self.client.is_connected:
                    return
                await self.stream.publish(
                    f"dead.{consumer}.{fact_name(event)}", event.SerializeToString(), timeout=2, headers=recorded
                )

        task = asyncio.create_task(publish(), name=f"{self.source} dead letter")
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _address(self) -> str:
        return self.url.rsplit("@", 1)[-1].removeprefix("nats://")

    async def _connect(self) -> None:
        delay = 0.2
        while not self.client.is_connected:
            try:
                # The client's own first connect never gives up; ours says what it waits for, and begins anew.
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._open()
                await ensure_streams(self.stream)
                await self.client.subscribe("wake.*", cb=self._on_wake)
                log.info("nats_connected", address=self._address())
            except (TimeoutError, NatsError, OSError) as error:
                log.warning("nats_unreachable", address=self._address(), error=str(error) or type(error).__name__)
                with contextlib.suppress(Exception):
                    await self.client.close()
                self.client = Client()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    async def _open(self) -> None:
        await self.client.connect(
            self.url,
            name=self.source,
            connect_timeout=3,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=8 << 20,
            error_cb=self._on_error,
            disconnected_cb=self._on_event("nats_disconnected"),
            reconnected_cb=self._on_event("nats_reconnected"),
            closed_cb=self._on_event("nats_closed"),
        )

    async def _on_error(self, error: Exception) -> None:
        log.debug("nats_error", error=str(error))

    def _on_event(self, name: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            log.info(name, address=self._address())

        return note

    async def _on_wake(self, message: Msg) -> None:
        for call in self._wakes:
            call(message.subject.removeprefix("wake."))

    def _on_recorded(self, recorded: Sequence[RecordedFact]) -> None:
        if len(self._pending) < MAX_PENDING:
            self._pending.extend(recorded)
        self._recorded.set()

    async def _relay(self) -> None:
        looked = -math.inf
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._recorded.wait()
            self._recorded.clear()
            try:
                await self._publish_pending()
                # Facts without a pause must not keep what an outage left behind waiting.
                if time.monotonic() - looked >= SWEEP_SECONDS:
                    looked = time.monotonic()
                    await self._publish_table()
            except (TimeoutError, NatsError, Problem, OSError) as error:
                log.debug("relay_waits", error=str(error) or type(error).__name__)
                await asyncio.sleep(0.25)
            except Exception:
                log.exception("relay_failed")
                await asyncio.sleep(1.0)

    async def _publish_pending(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            await self._publish(batch)

    async def _publish_table(self) -> None:
        before = self.clock.now() - timedelta(seconds=SWEEP_SECONDS)
        async with self.database.reading() as reading:
            rows = await reading.all(UNPUBLISHED, source=self.source, before=before, batch=BATCH)
        if rows:
            await self._publish([RecordedFact(Event.FromString(row.payload), row.traceparent) for row in rows])

    async def _publish(self, batch: Sequence[RecordedFact]) -> None:
        if not self.client.is_connected:
            return
        stream = self.stream
        sent = [
            (
                event,
                await stream.publish_async(subject(event), event.SerializeToString(), 1.0, HEAL, headers(event, trace)),
            )
            for event, trace in batch
        ]
        await asyncio.wait([answer for _, answer in sent], timeout=ACK_SECONDS)
        stored = [event.id for event, answer in sent if answer.done() and not answer.exception()]
        for _, answer in sent:
            answer.cancel()
        if stored:
            await self.database.transaction(lambda transaction: _mark_published(transaction, stored))
        elif batch:
            await ensure_streams(stream)


async def _mark_published(transaction: Transaction, ids: Sequence[str]) -> None:
    await transaction.run(PUBLISHED, now=transaction.now, ids=list(ids))


def headers(event: Event, traceparent: str) -> dict[str, str]:
    """CloudEvents attributes (binary mode) and W3C trace context; the id lets the server drop repeats."""
    made = {
        "Nats-Msg-Id": event.id,
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-source": f"/prunella/{event.source}",
        "ce-type": f"prunella.v1.{fact_name(event)}",
        "ce-subject": event.plugin or "-",
        "ce-time": event.time.ToJsonString(),
        "content-type": "application/protobuf",
    }
    return made | ({"traceparent": traceparent} if traceparent else {})
