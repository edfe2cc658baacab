"""Answers of siblings for the overview, and how long one serves.

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
STALE = 60.0  # seconds it serves while the next one is fetched
TIMEOUT = 3.0
CAPACITY = 1000  # merchants whose answers are cached


@dataclass
class Answer:
    """A sibling's answer and when it came."""

    value: Any
    time: float


@dataclass
class SiblingCache:
    """Asks ingest and queue; `channel` is the way to one, None where no address is known."""

    clock: Clock
    channel: Callable[[str], grpc.aio.Channel | None]
    _answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    _fetching: dict[tuple[str, str], asyncio.Task[Answer]] = field(default_factory=dict)

    async def fleet(self, merchant: str) -> ingest_pb2.GetFleetResponse | None:
        """The fleet's releases and health; None when ingest cannot be asked."""
        request = ingest_pb2.GetFleetRequest(breakdown=True, merchant=merchant)

        async def ask(channel: grpc.aio.Channel) -> Any:
            stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)
            return await stub.GetFleet(request, timeout=TIMEOUT)

        found: ingest_pb2.GetFleetResponse | None = await self._answer(("ingest", merchant), ask)
        return found

    async def queue(self, merchant: str) -> queue_pb2.GetQueueStatsResponse | None:
        """The queue in figures, which has none of one merchant; None when queue cannot be asked."""
        if merchant:
            return None

        async def ask(channel: grpc.aio.Channel) -> Any:
            stub: Any = queue_pb2_grpc.QueueServiceStub(channel)
            return await stub.GetQueueStats(queue_pb2.GetQueueStatsRequest(), timeout=TIMEOUT)

        found: queue_pb2.GetQueueStatsResponse | None = await self._answer(("queue", ""), ask)
        return found

    async def _answer(self, key: tuple[str, str], ask: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
        cached = self._answers.get(key)
        age = self.clock.monotonic() - cached.time if cached else STALE
        if cached and age < FRESH:
            return cached.value
        fetching = self._fetching.get(key)
        if fetching is None:
            fetching = asyncio.create_task(self._fetch(key, ask), name=f"ops asks {key[0]}")
            self._fetching[key] = fetching
            fetching.add_done_callback(lambda _: self._fetching.pop(key, None))
        if cached and age < STALE:
            return cached.value
        # Whoever asks may give up; the answer still serves the next.
        return (await asyncio.shield(fetching)).value

    async def _fetch(self, key: tuple[str, str], ask: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Answer:
        channel = self.channel(key[0])
        try:
            value = None if channel is None else await ask(channel)
        except (Problem, grpc.aio.AioRpcError, TimeoutError):
            value = None
        cached = self._answers.get(key)
        if value is None and cached and self.clock.monotonic() - cached.time < STALE:
            return cached
        if len(self._answers) >= CAPACITY:
            self._answers.clear()
        self._answers[key] = Answer(value, self.clock.monotonic())
        return self._answers[key]
