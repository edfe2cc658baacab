"""What ops asks siblings for the overview, and how long an answer serves.

Rule: an answer serves for a few seconds; an older one still serves while the next is fetched beside, so that nobody
waits for a large fleet to be counted. A sibling that does not answer makes a figure absent, never zero, and is not
asked again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from libs.common.clock import Clock
from libs.common.errors import Problem
from prunella.v1 import ingest_pb2, ingest_pb2_grpc, queue_pb2, queue_pb2_grpc

FRESH = 5.0  # seconds an answer serves by itself
OLD = 60.0  # seconds it serves while the next one is fetched
PATIENCE = 3.0
MOST = 1000  # merchants whose answers are kept


@dataclass
class Answer:
    """A sibling's answer and when it came."""

    value: Any
    at: float


@dataclass
class Questions:
    """Asks ingest and queue; `channel` is the way to one, None where no address is known."""

    clock: Clock
    channel: Callable[[str], grpc.aio.Channel | None]
    _kept: dict[tuple[str, str], Answer] = field(default_factory=dict)
    _asking: dict[tuple[str, str], asyncio.Task[Answer | None]] = field(default_factory=dict)

    async def fleet(self, merchant: str) -> ingest_pb2.GetFleetResponse | None:
        """What the fleet runs and how it is; None when ingest cannot be asked."""

        async def ask() -> ingest_pb2.GetFleetResponse | None:
            channel = self.channel("ingest")
            if channel is None:
                return None
            stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)
            request = ingest_pb2.GetFleetRequest(breakdown=True, merchant=merchant)
            answer: ingest_pb2.GetFleetResponse = await stub.GetFleet(request, timeout=PATIENCE)
            return answer

        found: ingest_pb2.GetFleetResponse | None = await self._answer(("fleet", merchant), ask)
        return found

    async def queue(self) -> queue_pb2.GetQueueStatsResponse | None:
        """The queue in figures; None when queue cannot be asked."""

        async def ask() -> queue_pb2.GetQueueStatsResponse | None:
            channel = self.channel("queue")
            if channel is None:
                return None
            stub: Any = queue_pb2_grpc.QueueServiceStub(channel)
            answer: queue_pb2.GetQueueStatsResponse = await stub.GetQueueStats(
                queue_pb2.GetQueueStatsRequest(), timeout=PATIENCE
            )
            return answer

        found: queue_pb2.GetQueueStatsResponse | None = await self._answer(("queue", ""), ask)
        return found

    async def _answer(self, key: tuple[str, str], ask: Callable[[], Awaitable[Any]]) -> Any:
        kept = self._kept.get(key)
        age = self.clock.monotonic() - kept.at if kept else OLD
        if kept and age < FRESH:
            return kept.value
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._ask(key, ask), name=f"ops asks {key[0]}")
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        if kept and age < OLD:
            return kept.value
        # Whoever asks may give up; the answer still serves the next.
        fresh = await asyncio.shield(asking)
        return fresh.value if fresh else None

    async def _ask(self, key: tuple[str, str], ask: Callable[[], Awaitable[Any]]) -> Answer | None:
        try:
            value = await ask()
        except (Problem, grpc.aio.AioRpcError, TimeoutError):
            value = None
        known = self._kept.get(key)
        if value is None and known and self.clock.monotonic() - known.at < OLD:
            return known
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[key] = Answer(value, self.clock.monotonic())
        return self._kept[key]
