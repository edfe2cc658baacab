"""The consumer of door 2: brings each fact to its reaction and lets it have its effect once.

Rule: the inbox row is inserted in the transaction of the effect. A fact may come from JetStream, again from
JetStream, or from the table when a sweep finds it without an inbox row; the reaction cannot tell, and need not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from libs.common import facts
from libs.common.bus import dead_letters
from libs.common.bus.connection import Bus
from libs.common.bus.streams import ACK_WAIT, ensure_consumer, ensure_streams, pull
from libs.common.cancellation import cancel_and_wait
from libs.common.database import Database, Transaction, met_limit
from libs.common.errors import Problem, Unavailable
from libs.common.facts import fact_name
from libs.common.telemetry import Telemetry, counter, gauge, histogram, use_traceparent
from prunella.v1.events_pb2 import Event, FactDeadLettered

log = structlog.get_logger()
_seconds = histogram("reaction_seconds", "Time one try to handle a fact took", ("consumer", "outcome"))
_lag = gauge(
    "consumer_lag_seconds",
    "Age of the oldest fact the consumer has not handled, of those older than 5 s",
    ("consumer",),
)
_dead_lettered = counter("facts_dead_lettered_total", "Facts a consumer gave up", ("consumer",))

Once = Callable[[Callable[[Transaction], Awaitable[None]]], Awaitable[None]]
Reaction = Callable[[Any, Event, Once], Awaitable[None]]

DEAD_LETTERED = "fact_dead_lettered"
CONCURRENCY = 16  # facts handled at once
DEADLINE = 60.0  # seconds a reaction may take
SWEEP_AGE = timedelta(seconds=5)  # age at which the table overtakes JetStream
WATERMARK_LAG = timedelta(seconds=60)  # no transaction stays open longer, so nothing older can still appear
SWEEP_SECONDS = 2.0
BATCH = 200
# Somebody else's failure.
ELSEWHERE = (Unavailable, OSError)

RECEIVE = """
INSERT INTO bus.inbox (consumer, event_id, handle_time) VALUES (:consumer, :event, :now) ON CONFLICT DO NOTHING
"""
HANDLED = "SELECT 1 FROM bus.inbox WHERE consumer = :consumer AND event_id = :event"
MISSED = """
SELECT f.payload, f.traceparent, f.time, t.retry_time FROM bus.facts f
LEFT JOIN bus.delivery_failures t ON t.consumer = :consumer AND t.event_id = f.id
WHERE f.fact = ANY(CAST(:facts AS text[])) AND f.time <= :before
  AND f.time >= coalesce((SELECT watermark_time FROM bus.consumer_watermarks WHERE consumer = :consumer),
                       CAST('-infinity' AS timestamptz))
  AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = :consumer AND i.event_id = f.id)
  AND NOT EXISTS (SELECT 1 FROM bus.dead_letters d
                  WHERE d.consumer = :consumer AND d.event_id = f.id AND d.redrive_time IS NULL)
ORDER BY f.time LIMIT :batch
"""
# A redriven dead letter may be older than the watermark.
REDRIVEN = """
SELECT f.payload, f.traceparent, CAST(NULL AS timestamptz) AS retry_time
FROM bus.dead_letters d JOIN bus.facts f ON f.id = d.event_id
WHERE d.consumer = :consumer AND d.redrive_time IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = :consumer AND i.event_id = d.event_id) LIMIT :batch
"""
ADVANCE = """
INSERT INTO bus.consumer_watermarks (consumer, watermark_time) VALUES (:consumer, :before)
ON CONFLICT (consumer) DO UPDATE SET watermark_time = greatest(bus.consumer_watermarks.watermark_time, :before)
"""


class Consumer:
    """All reactions of one service. Replicas share the durable consumer and the sweep."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        service: str,
        reactions: Mapping[str, Reaction],
        ctx: Any,
        telemetry: Telemetry,
    ) -> None:
        self.name = "consumer"
        self.bus = bus
        self.database = database
        self.service = service
        self.reactions = reactions
        self.ctx = ctx
        self.telemetry = telemetry
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._tasks: list[asyncio.Task[None]] = []
        self._handling: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Begins to pull and to sweep."""
        self._tasks = [
            asyncio.create_task(loop, name=f"{self.service} consumer") for loop in (self._pull(), self._sweep())
        ]

    async def stop(self) -> None:
        """Takes nothing new and lets what runs end, up to 5 s."""
        await cancel_and_wait(self._tasks)
        if self._handling:
            await asyncio.wait(set(self._handling.values()), timeout=5)

    async def _pull(self) -> None:
        delay = 0.1
        while True:
            try:
                stream = self.bus.stream
                await ensure_streams(stream)
                await ensure_consumer(stream, self.service, self.reactions)
                async for message in pull(self.bus.client, self.service, CONCURRENCY):
                    delay = 0.1
                    await self._receive(message)
            except (TimeoutError, NatsError, Problem, OSError) as error:
                log.debug("consumer_waits", consumer=self.service, error=str(error) or type(error).__name__)
            except Exception:
                log.exception("consumer_failed", consumer=self.service)
            await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - spreads load, guards nothing
            delay = min(delay * 2, 5.0)

    async def _receive(self, message: Msg) -> None:
        try:
            event = Event.FromString(message.data)
        except DecodeError:
            # The table has every fact whole; what cannot be read here is none, and would come again for a day.
            log.error("message_unreadable", consumer=self.service, subject=message.subject, size=len(message.data))
            await _best_effort(message.term())
            return
        if event.id in self._handling:
            return
        await self._slots.acquire()
        trace = (message.headers or {}).get("traceparent", "")
        redelivered = message.metadata.num_delivered > 1
        self._spawn(event, self._deliver(message, event, trace, redelivered))

    def _spawn(self, event: Event, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{self.service} {fact_name(event)}")
        self._handling[event.id] = task

        def ended(_task: asyncio.Task[None]) -> None:
            self._handling.pop(event.id, None)
            self._slots.release()

        task.add_done_callback(ended)
        return task

    async def _deliver(self, message: Msg, event: Event, trace: str, redelivered: bool) -> None:
        if fact_name(event) not in self.reactions:
            # A newer build tells it; an older replica must leave it for the newer one.
            await _best_effort(message.nak(30))
            return
        working = asyncio.create_task(_in_progress(message))
        try:
            wait = await self.handle(event, trace, redelivered=redelivered)
        finally:
            working.cancel()
        await _best_effort(message.ack() if wait is None else message.nak(wait))

    async def handle(self, event: Event, trace: str = "", *, redelivered: bool = False) -> float | None:
        """Brings one fact to its reaction; None when it is done with, else seconds until it should come again."""
        fact = fact_name(event)
        began, outcome = time.perf_counter(), "cancelled"
        try:
            if redelivered and not await self._admit(event, fact):
                outcome = "skipped"
                return None
            attributes = {"fact": fact, "event": event.id, "plugin": event.plugin}
            with self._traced(f"react {fact}", trace, attributes):
                async with asyncio.timeout(DEADLINE):
                    await self._react(event, self.reactions[fact])
            if redelivered:
                await self.database.transaction(
                    lambda tx: tx.run(dead_letters.DELETE_FAILURES, consumer=self.service, event=event.id)
                )
            outcome = "handled"
            return None
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a reaction raises is this fact's failure
            outcome = "waits" if _elsewhere(error) else "failed"
            return await self._failed(event, fact, error)
        finally:
            _seconds.labels(self.service, outcome).observe(time.perf_counter() - began)

    @contextlib.contextmanager
    def _traced(self, name: str, trace: str, attributes: dict[str, str]) -> Iterator[None]:
        # A fact outside any trace starts none: only healings are traced.
        live = self.telemetry.span(name, attributes=attributes) if trace else contextlib.nullcontext()
        with self.telemetry.use(), use_traceparent(trace), live:
            yield

    async def _react(self, event: Event, reaction: Reaction) -> None:
        done = False

        async def once(work: Callable[[Transaction], Awaitable[None]]) -> None:
            nonlocal done

            async def effect(transaction: Transaction) -> None:
                if await transaction.run(RECEIVE, consumer=self.service, event=event.id, now=transaction.now):
                    await work(transaction)

            await self.database.transaction(effect)
            done = True

        await reaction(self.ctx, event, once)
        if not done:
            await once(_nothing)

    async def _admit(self, event: Event, fact: str) -> bool:
        async def work(transaction: Transaction) -> bool:
            if await transaction.first(HANDLED, consumer=self.service, event=event.id):
                return False
            row = await transaction.first(dead_letters.COUNT_ATTEMPT, consumer=self.service, event=event.id)
            assert row is not None
            crashes = row.attempts - 1 - row.errors
            if crashes >= dead_letters.MAX_CRASHES or row.errors >= dead_letters.MAX_ERRORS:
                await self._dead_letter(
                    transaction, event, fact, row.reason or "the consumer died", row.errors, crashes
                )
                return False
            return True

        return await self.database.transaction(work)

    async def _dead_letter(
        self, transaction: Transaction, event: Event, fact: str, reason: str, errors: int, crashes: int
    ) -> None:
        values = {"fact": fact, "reason": reason[:500], "errors": errors, "crashes": crashes}
        await transaction.run(
            dead_letters.INSERT, consumer=self.service, event=event.id, create_time=transaction.now, **values
        )
        if fact != DEAD_LETTERED:
            # Somebody has to know; a fact about a fact about it would never end.
            given_up = FactDeadLettered(consumer=self.service, event=event.id, fact=fact)
            about = {"plugin": event.plugin, "merchant": event.merchant}
            transaction.record(facts.fact(self.service, given_up, reason=reason[:500], cause=event, **about))
        transaction.after_commit(lambda: self.bus.announce_dead_letter(self.service, event, reason))
        transaction.after_commit(_dead_lettered.labels(self.service).inc)
        log.error("fact_dead_lettered", consumer=self.service, event_id=event.id, **values)

    async def _failed(self, event: Event, fact: str, error: Exception) -> float:
        reason = f"{type(error).__name__}: {error}"
        if _elsewhere(error):
            # Somebody else is away; that is no fault of this fact and never makes it a dead letter.
            log.warning("reaction_waits", consumer=self.service, fact=fact, event_id=event.id, error=reason)
            with contextlib.suppress(Problem):
                await self.database.transaction(
                    lambda tx: tx.run(dead_letters.DISCOUNT_ATTEMPT, consumer=self.service, event=event.id), retries=0
                )
            return 1.0
        log.error("reaction_failed", consumer=self.service, fact=fact, event_id=event.id, exc_info=error)

        async def work(transaction: Transaction) -> int:
            retry_time = transaction.now + timedelta(seconds=1)
            values = {"reason": reason[:500], "retry_time": retry_time}
            return int(
                await transaction.value(dead_letters.COUNT_ERROR, consumer=self.service, event=event.id, **values)
            )

        try:
            errors = await self.database.transaction(work)
            return float(min(0.5 * 2**errors, 30.0))
        except Exception as problem:  # noqa: BLE001 - the fact comes again all the same
            log.warning("delivery_failure_not_recorded", error=str(problem))
            return 5.0

    async def _sweep(self) -> None:
        while True:
            await self.database.clock.sleep(random.uniform(SWEEP_SECONDS * 0.75, SWEEP_SECONDS * 1.25))  # noqa: S311 - spreads load
            try:
                await self.run_once(self.database.clock.now())
            except (TimeoutError, Problem, OSError) as error:
                log.debug("catch_up_waits", consumer=self.service, error=str(error))
            except Exception:
                log.exception("catch_up_failed", consumer=self.service)

    async def run_once(self, now: datetime) -> int:
        """Handles facts older than 5 s that have no inbox row, straight from the table; returns how many it found."""
        values = {"consumer": self.service, "batch": BATCH}
        async with self.database.reading() as reading:
            missed = await reading.all(MISSED, facts=list(self.reactions), before=now - SWEEP_AGE, **values)
            redriven = await reading.all(REDRIVEN, **values)
        _lag.labels(self.service).set((now - missed[0].time).total_seconds() if missed else 0.0)
        running: list[asyncio.Task[None]] = []
        for row in [*missed, *redriven]:
            event = Event.FromString(row.payload)
            if event.id not in self._handling and not (row.retry_time and row.retry_time > now):
                await self._slots.acquire()
                running.append(self._spawn(event, self._redeliver(event, row.traceparent)))
        await asyncio.gather(*running, return_exceptions=True)
        if not missed:
            before = now - WATERMARK_LAG
            await self.database.transaction(lambda tx: tx.run(ADVANCE, consumer=self.service, before=before))
        return len(missed) + len(redriven)

    async def _redeliver(self, event: Event, trace: str) -> None:
        await self.handle(event, trace, redelivered=True)


def _elsewhere(error: Exception) -> bool:
    """Whether somebody else is to blame; not when the reaction's time or that of a statement ran out, for it may do so
    each time. While a database is away no count of errors can be written either.
    """
    return isinstance(error, ELSEWHERE) and not isinstance(error, TimeoutError) and not met_limit(error)


async def _in_progress(message: Msg) -> None:
    while True:
        await asyncio.sleep(ACK_WAIT / 3)
        await _best_effort(message.in_progress())


async def _best_effort(answer: Awaitable[None]) -> None:
    # An answer that is lost means one more delivery, which the inbox absorbs.
    with contextlib.suppress(NatsError, OSError):
        await answer


async def _nothing(_transaction: Transaction) -> None:
    return None
