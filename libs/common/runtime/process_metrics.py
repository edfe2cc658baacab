"""How a process is, in figures: its loop, its connections, its outbox, its consumer, its errands.

Rule: every service is measured alike and by its parts alone, a few times a minute; a figure that cannot be had (a
server is away) keeps its last value, while `serving` and `nats_connected` say that something is away. Labels are names
of services, so the number of series does not depend on what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from nats.errors import Error as NatsError

from libs.common.bus import Bus, Consumer
from libs.common.bus.streams import HEAL
from libs.common.database import Database
from libs.common.errands import Errands
from libs.common.errors import Problem
from libs.common.rpc import Server
from libs.common.runtime.loops import Loop
from libs.common.telemetry import gauge, histogram

INTERVAL: Final = 5.0
# What the loop is asked to sleep; what it takes longer is what every call waits.
NAP: Final = 0.25
DELAYS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_serving = gauge("serving", "1 while the service says SERVING, else 0", ("service",))
_delay = histogram(
    "event_loop_delay_seconds", "How much later than asked for the event loop went on", ("service",), buckets=DELAYS
)
_pool = gauge("pool_connections", "Database connections the service may have", ("service",))
_used = gauge("pool_connections_used", "Database connections in use at the last look", ("service",))
_connected = gauge("nats_connected", "1 while the service has a connection to NATS, else 0", ("service",))
_outbox = gauge("outbox_facts", "Facts of the service that NATS has not taken yet, at most 10,000", ("service",))
_outbox_age = gauge(
    "outbox_age_seconds", "Age of the oldest fact that NATS has not taken yet; 0 for none", ("service",)
)
_pending = gauge("consumer_pending", "Facts NATS has not brought to the consumer yet", ("consumer",))
_unsettled = gauge("consumer_unacknowledged", "Facts brought to the consumer that it has not settled", ("consumer",))
_dead_letters = gauge("dead_letters", "Facts the consumer gave up, not handed out again since", ("consumer",))
_errands = gauge("errands_pending", "Errands that are not done yet, at most 10,000", ("service",))
_leased = gauge("errand_leases", "Errands under a lease: somebody works on them", ("service",))
_overdue = gauge("errands_overdue_seconds", "How long the errand that is due longest waits; 0 for none", ("service",))

MOST: Final = 10_000
OUTBOX = """
SELECT count(*) AS count, min(time) AS oldest FROM (
    SELECT time FROM bus.facts WHERE source = :source AND publish_time IS NULL ORDER BY time LIMIT :most) f
"""
DEAD_LETTERS = "SELECT count(*) FROM bus.dead_letters WHERE consumer = :consumer AND redrive_time IS NULL"
ERRANDS = """
SELECT count(*) AS count, count(*) FILTER (WHERE lease_expire_time >= :now) AS leased,
       min(due_time) FILTER (WHERE due_time <= :now AND (lease_expire_time IS NULL OR lease_expire_time < :now)) AS due
FROM (SELECT due_time, lease_expire_time FROM {schema}.errands WHERE state = 'pending' ORDER BY due_time LIMIT :most) e
"""


class ProcessMetrics:
    """A part that measures one service for as long as it lives. `measure` measures once."""

    def __init__(self, service: str, server: Server, parts: Sequence[Any], ctx: Any) -> None:
        self.name = f"{service} process metrics"
        self._service = service
        self._server = server
        self._database: Database | None = getattr(ctx, "database", None)
        self._buses = [part for part in parts if isinstance(part, Bus)]
        self._consumers = [part for part in parts if isinstance(part, Consumer)]
        self._errands = [part for part in parts if isinstance(part, Errands)]
        self._loops = [
            Loop(self.name, self.measure, every=INTERVAL),
            Loop(f"{service} event loop delay", self._measure_delay, every=0),
        ]

    async def start(self) -> None:
        """Begins to measure."""
        for loop in self._loops:
            await loop.start()

    async def stop(self) -> None:
        """Ends it."""
        for loop in self._loops:
            await loop.stop()

    async def measure(self) -> None:
        """Measures everything that has to be asked for; what cannot be asked stays as it was."""
        _serving.labels(self._service).set(self._server.serving)
        for bus in self._buses:
            _connected.labels(self._service).set(bus.client.is_connected)
        if self._database:
            pool: Any = self._database.engine.pool
            _pool.labels(self._service).set(pool.size())
            _used.labels(self._service).set(pool.checkedout())
        queries: list[Callable[[], Awaitable[None]]] = [partial(self._measure_outbox, bus) for bus in self._buses]
        queries += [partial(self._measure_dead_letters, consumer) for consumer in self._consumers]
        queries += [partial(self._measure_errands, errands) for errands in self._errands]
        streams = [partial(self._measure_stream, consumer) for consumer in self._consumers]
        await asyncio.gather(_in_turn(queries), _in_turn(streams))

    async def _measure_delay(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(NAP)
        _delay.labels(self._service).observe(max(0.0, loop.time() - began - NAP))

    async def _measure_outbox(self, bus: Bus) -> None:
        async with bus.database.reading() as reading:
            row = await reading.first(OUTBOX, source=bus.source, most=MOST)
            now = reading.now
        assert row is not None
        _outbox.labels(self._service).set(row.count)
        _outbox_age.labels(self._service).set(_age(row.oldest, now))

    async def _measure_dead_letters(self, consumer: Consumer) -> None:
        async with consumer.database.reading() as reading:
            count = await reading.value(DEAD_LETTERS, consumer=consumer.service)
        _dead_letters.labels(consumer.service).set(count)

    async def _measure_stream(self, consumer: Consumer) -> None:
        if not consumer.bus.client.is_connected:
            return
        found = await consumer.bus.stream.consumer_info(HEAL, consumer.service)
        _pending.labels(consumer.service).set(found.num_pending or 0)
        _unsettled.labels(consumer.service).set(found.num_ack_pending or 0)

    async def _measure_errands(self, errands: Errands) -> None:
        async with errands.database.reading() as reading:
            now = reading.now
            row = await reading.first(ERRANDS.format(schema=errands.schema), now=now, most=MOST)
        assert row is not None
        _errands.labels(self._service).set(row.count)
        _leased.labels(self._service).set(row.leased)
        _overdue.labels(self._service).set(_age(row.due, now))


async def _in_turn(measurements: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """One after the other, so that measuring takes one connection; whoever is away is not asked twice in a round."""
    with contextlib.suppress(TimeoutError, Problem, NatsError, OSError):
        async with asyncio.timeout(INTERVAL):
            for measurement in measurements:
                await measurement()


def _age(time: Any, now: Any) -> float:
    return max(0.0, (now - time).total_seconds()) if time else 0.0
