"""Door 2's doorkeeper: brings each fact to its reaction and lets it have its effect once.

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

from libs.common.bus import dead_letters
from libs.common.bus.connection import Bus
from libs.common.bus.streams import ACK_WAIT, ensure_consumer, ensure_streams, pull
from libs.common.cancellation import end
from libs.common.database import Database, Transaction
from libs.common.errors import Problem, Unavailable
from libs.common.facts import fact_name
from libs.common.telemetry import Telemetry, counter, gauge, histogram, use_traceparent
from prunella.v1.events_pb2 import Event

log = structlog.get_logger()
_seconds = histogram("reaction_seconds", "Time one try to handle a fact took", ("consumer", "outcome"))
_lag = gauge(
    "consumer_lag_seconds",
    "Age of the oldest fact the consumer has not handled, of those older than 5 s",
    ("consumer",),
)
_parked = counter("facts_parked_total", "Facts a consumer gave up", ("consumer",))

Once = Callable[[Callable[[Transaction], Awaitable[None]]], Awaitable[None]]
Reaction = Callable[[Any, Event, Once], Awaitable[None]]

LANES = 16  # facts in hand at once
DEADLINE = 60.0  # seconds a reaction may take
LATE = timedelta(seconds=5)  # age at which the table overtakes JetStream
SETTLED = timedelta(seconds=60)  # no transaction stays open longer, so nothing older can still appear
SWEEP = 2.0
BATCH = 200
# Somebody else's trouble.
AWAY = (Unavailable, OSError)

RECEIVE = "INSERT INTO bus.inbox (consumer, event_id, at) VALUES (:consumer, :event, :now) ON CONFLICT DO NOTHING"
KNOWN = "SELECT 1 FROM bus.inbox WHERE consumer = :consumer AND event_id = :event"
MISSED = """
SELECT f.payload, f.traceparent, f.time, t.retry_at FROM bus.facts f
LEFT JOIN bus.trouble t ON t.consumer = :consumer AND t.event_id = f.id
WHERE f.fact = ANY(CAST(:facts AS text[])) AND f.time <= :before
  AND f.time >= coalesce((SELECT before FROM bus.settled WHERE consumer = :consumer), CAST('-infinity' AS timestamptz))
  AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = :consumer AND i.event_id = f.id)
  AND NOT EXISTS (SELECT 1 FROM bus.dead_letter d
                  WHERE d.consumer = :consumer AND d.event_id = f.id AND d.redriven_at IS NULL)
ORDER BY f.time LIMIT :batch
"""
# A redriven letter may be older than what is settled.
REDRIVEN = """
SELECT f.payload, f.traceparent, CAST(NULL AS timestamptz) AS retry_at
FROM bus.dead_letter d JOIN bus.facts f ON f.id = d.event_id
WHERE d.consumer = :consumer AND d.redriven_at IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = :consumer AND i.event_id = d.event_id) LIMIT :batch
"""
SETTLE = """
INSERT INTO bus.settled (consumer, before) VALUES (:consumer, :before)
ON CONFLICT (consumer) DO UPDATE SET before = greatest(bus.settled.before, :before)
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
        self._lanes = asyncio.Semaphore(LANES)
        self._tasks: list[asyncio.Task[None]] = []
        self._handling: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Begins to listen and to sweep."""
        self._tasks = [
            asyncio.create_task(loop, name=f"{self.service} consumer") for loop in (self._listen(), self._sweep())
        ]

    async def stop(self) -> None:
        """Takes nothing new and lets what is in hand end, up to 5 s."""
        await end(self._tasks)
        if self._handling:
            await asyncio.wait(set(self._handling.values()), timeout=5)

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                stream = self.bus.stream
                await ensure_streams(stream)
                await ensure_consumer(stream, self.service, self.reactions)
                async for message in pull(self.bus.client, self.service, LANES):
                    delay = 0.1
                    await self._take(message)
            except (TimeoutError, NatsError, Problem, OSError) as error:
                log.debug("consumer_waits", consumer=self.service, error=str(error) or type(error).__name__)
            except Exception:
                log.exception("consumer_failed", consumer=self.service)
            await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - spreads load, guards nothing
            delay = min(delay * 2, 5.0)

    async def _take(self, message: Msg) -> None:
        try:
            event = Event.FromString(message.data)
        except DecodeError:
            # The table has every fact whole; what cannot be read here is none, and would come again for a day.
            log.error("message_unreadable", consumer=self.service, subject=message.subject, size=len(message.data))
            await _quietly(message.term())
            return
        if event.id in self._handling:
            return
        await self._lanes.acquire()
        trace = (message.headers or {}).get("traceparent", "")
        again = message.metadata.num_delivered > 1
        self._begin(event, self._deliver(message, event, trace, again))

    def _begin(self, event: Event, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{self.service} {fact_name(event)}")
        self._handling[event.id] = task

        def ended(_task: asyncio.Task[None]) -> None:
            self._handling.pop(event.id, None)
            self._lanes.release()

        task.add_done_callback(ended)
        return task

    async def _deliver(self, message: Msg, event: Event, trace: str, again: bool) -> None:
        if fact_name(event) not in self.reactions:
            # A newer build tells it; an older replica must leave it for the newer one.
            await _quietly(message.nak(30))
            return
        working = asyncio.create_task(_in_progress(message))
        try:
            wait = await self.handle(event, trace, again=again)
        finally:
            working.cancel()
        await _quietly(message.ack() if wait is None else message.nak(wait))

    async def handle(self, event: Event, trace: str = "", *, again: bool = False) -> float | None:
        """Brings one fact to its reaction; None when it is done with, else seconds until it should come again."""
        fact = fact_name(event)
        began, outcome = time.perf_counter(), "cancelled"
        try:
            if again and not await self._may_start(event, fact):
                outcome = "settled"
                return None
            attributes = {"fact": fact, "event": event.id, "plugin": event.plugin}
            with self._traced(f"react {fact}", trace, attributes):
                async with asyncio.timeout(DEADLINE):
                    await self._react(event, self.reactions[fact])
            if again:
                await self.database.transaction(
                    lambda tx: tx.run(dead_letters.FORGET, consumer=self.service, event=event.id)
                )
            outcome = "handled"
            return None
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a reaction raises is this fact's trouble
            outcome = "waits" if _elsewhere(error) else "failed"
            return await self._complain(event, fact, error)
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

    async def _may_start(self, event: Event, fact: str) -> bool:
        async def work(transaction: Transaction) -> bool:
            if await transaction.first(KNOWN, consumer=self.service, event=event.id):
                return False
            row = await transaction.first(dead_letters.STARTED, consumer=self.service, event=event.id)
            assert row is not None
            crashes = row.starts - 1 - row.errors
            if crashes >= dead_letters.CRASHES or row.errors >= dead_letters.ERRORS:
                await self._park(transaction, event, fact, row.reason or "the consumer died", row.errors, crashes)
                return False
            return True

        return await self.database.transaction(work)

    async def _park(
        self, transaction: Transaction, event: Event, fact: str, reason: str, errors: int, crashes: int
    ) -> None:
        values = {"fact": fact, "reason": reason[:500], "errors": errors, "crashes": crashes, "at": transaction.now}
        await transaction.run(dead_letters.PARK, consumer=self.service, event=event.id, **values)
        transaction.after_commit(lambda: self.bus.park(self.service, event, reason))
        transaction.after_commit(_parked.labels(self.service).inc)
        log.error("fact_parked", consumer=self.service, event_id=event.id, **{**values, "at": str(transaction.now)})

    async def _complain(self, event: Event, fact: str, error: Exception) -> float:
        reason = f"{type(error).__name__}: {error}"
        if _elsewhere(error):
            # Somebody else is away; that is no fault of this fact and never parks it.
            log.warning("reaction_waits", consumer=self.service, fact=fact, event_id=event.id, error=reason)
            with contextlib.suppress(Problem):
                await self.database.transaction(
                    lambda tx: tx.run(dead_letters.EXCUSED, consumer=self.service, event=event.id), retries=0
                )
            return 1.0
        log.error("reaction_failed", consumer=self.service, fact=fact, event_id=event.id, exc_info=error)

        async def work(transaction: Transaction) -> int:
            retry_at = transaction.now + timedelta(seconds=1)
            values = {"reason": reason[:500], "retry_at": retry_at}
            return int(await transaction.value(dead_letters.RAISED, consumer=self.service, event=event.id, **values))

        try:
            errors = await self.database.transaction(work)
            return float(min(0.5 * 2**errors, 30.0))
        except Exception as trouble:  # noqa: BLE001 - the fact comes again all the same
            log.warning("trouble_not_recorded", error=str(trouble))
            return 5.0

    async def _sweep(self) -> None:
        while True:
            await self.database.clock.sleep(random.uniform(SWEEP * 0.75, SWEEP * 1.25))  # noqa: S311 - spreads load
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
            missed = await reading.all(MISSED, facts=list(self.reactions), before=now - LATE, **values)
            redriven = await reading.all(REDRIVEN, **values)
        _lag.labels(self.service).set((now - missed[0].time).total_seconds() if missed else 0.0)
        running: list[asyncio.Task[None]] = []
        for row in [*missed, *redriven]:
            event = Event.FromString(row.payload)
            if event.id not in self._handling and not (row.retry_at and row.retry_at > now):
                await self._lanes.acquire()
                running.append(self._begin(event, self._catch_up(event, row.traceparent)))
        await asyncio.gather(*running, return_exceptions=True)
        if not missed:
            before = now - SETTLED
            await self.database.transaction(lambda tx: tx.run(SETTLE, consumer=self.service, before=before))
        return len(missed) + len(redriven)

    async def _catch_up(self, event: Event, trace: str) -> None:
        await self.handle(event, trace, again=True)


def _elsewhere(error: Exception) -> bool:
    """Whether somebody else is to blame; not when the reaction's own time ran out, for it may do so each time."""
    return isinstance(error, AWAY) and not isinstance(error, TimeoutError)


async def _in_progress(message: Msg) -> None:
    while True:
        await asyncio.sleep(ACK_WAIT / 3)
        await _quietly(message.in_progress())


async def _quietly(answer: Awaitable[None]) -> None:
    # An answer that is lost means one more delivery, which the inbox absorbs.
    with contextlib.suppress(NatsError, OSError):
        await answer


async def _nothing(_transaction: Transaction) -> None:
    return None
