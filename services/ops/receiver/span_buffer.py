"""Spans between the network and the table: a bounded queue and one writer.

Rule: nobody who sends spans ever waits for the database. When the queue is full, spans are dropped and counted; they
are help for people, not state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence

from libs.common.cancellation import cancel_and_wait
from libs.common.database import Database, met_limit
from libs.common.errors import Problem
from libs.common.telemetry import counter, gauge
from services.ops.store import spans as store
from services.ops.traces import Span

log = logging.getLogger(__name__)

QUEUE = 20_000
BATCH = 1000
LATEST_FLUSH = 2.0  # seconds the last batches may take when the service stops

received = counter("ops_spans_received", "Spans that were accepted")
dropped = counter("ops_spans_dropped", "Spans that were not saved", ["reason"])
waiting = gauge("ops_spans_waiting", "Spans between the network and the table")


class SpanBuffer:
    """Takes spans in and writes them in batches."""

    name = "span buffer"

    def __init__(self, database: Database, *, most: int = QUEUE) -> None:
        self.database = database
        self.most = most
        self._queue: deque[Span] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def offer(self, spans: Iterable[Span]) -> int:
        """Queues what there is room for; how many spans that was."""
        taken = refused = 0
        for span in spans:
            if len(self._queue) < self.most:
                self._queue.append(span)
                taken += 1
            else:
                refused += 1
        received.inc(taken)
        dropped.labels("queue_full").inc(refused)
        waiting.set(len(self._queue))
        self._news.set()
        return taken

    async def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._run(), name="ops spans")

    async def stop(self) -> None:
        """Writes what waits, for at most 2 s."""
        if self._task:
            await cancel_and_wait([self._task])
        with contextlib.suppress(asyncio.TimeoutError, Problem):
            async with asyncio.timeout(LATEST_FLUSH):
                await self._drain()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._drain()
            except Problem as problem:
                log.debug("spans wait: %s", problem.message)
                await asyncio.sleep(0.5)
                self._news.set()

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue[index] for index in range(min(BATCH, len(self._queue)))]
            await self._write(batch)
            for _ in batch:
                self._queue.popleft()
            waiting.set(len(self._queue))

    async def _write(self, batch: Sequence[Span]) -> None:
        """Writes spans; what the table will never take must not stand in the way of the rest."""
        try:
            await self.database.transaction(lambda tx: store.insert(tx, batch))
        except Exception as error:
            if isinstance(error, Problem) and not met_limit(error):
                raise
            if len(batch) == 1:
                log.exception("a span of %s cannot be written", batch[0].service)
                dropped.labels("unwritable").inc()
                return
            # A span that was written already changes nothing when the batch comes again.
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
