"""Agents that only beat: they join by token like everybody, send at a fixed pace, and are retired at the end.

Rule: the pace is the clock's and not the plane's: a beat that could not go out in time counts from when it should have
(otherwise a plane that stands still for a second would look fast). Nobody is left behind: whoever joined is retired,
also when the run is broken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from libs.common.errors import Problem
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc, ingest_pb2
from prunella_agent.credential import Credential
from prunella_agent.enroll import enroll
from prunella_agent.session import open_channel

PACKAGE, MERCHANT, RELEASE = "load", "load", "1.0.0"
WINDOW = 256  # beats one agent has in flight at most, unless the plane allows fewer
CONCURRENCY = 16
PER_CHANNEL = 100
CALL_SECONDS = 15.0
LAST_SECONDS = 10.0  # for acknowledgements of the last beats
AGAIN_SECONDS = 1.0
# A stream that ended under a write is told of in a way of its own.
BROKEN = (grpc.RpcError, asyncio.InvalidStateError, TimeoutError)
RETIRED = "the load test is over"


@dataclass
class LoadStats:
    """What a run saw; delays in seconds from when a beat was due to its acknowledgement."""

    sent: int = 0
    acknowledged: int = 0
    broken: int = 0
    delays: list[float] = field(default_factory=list)


@dataclass
class LoadAgent:
    """One agent that sends `rate` beats per second from `begin` until `until` (both of the monotonic clock)."""

    credential: Credential
    stub: Any
    rate: float
    stats: LoadStats
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _due: deque[tuple[int, float]] = field(default_factory=deque)
    _sequence: int = 0
    _window: int = WINDOW
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, begin: float, until: float) -> None:
        """Beats; comes back after a stream that broke. Beats that were under way then are not sent again."""
        # Agents of one fleet do not beat in the same instant.
        next_due = begin + random.random() / self.rate  # noqa: S311 - spreads load, guards nothing
        while time.monotonic() < until:
            next_due = max(next_due, time.monotonic())
            try:
                next_due = await self._stream(next_due, until)
            except BROKEN:
                self.stats.broken += 1
                self._due.clear()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _stream(self, next_due: float, until: float) -> float:
        metadata = (("authorization", f"Plugin {self.credential.plugin}:{self.credential.secret}"),)
        call = self.stub.Connect(metadata=metadata)
        receiving = asyncio.create_task(self._receive(call))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await call.write(pb.ConnectRequest(hello=self._hello()))
            while next_due < until:
                await asyncio.sleep(next_due - time.monotonic())
                while len(self._due) >= self._window:
                    await self._wait_for_news(receiving)
                self._sequence += 1
                self._due.append((self._sequence, next_due))
                self.stats.sent += 1
                await call.write(pb.ConnectRequest(beat=self._beat()))
                next_due += 1 / self.rate
            while self._due:
                await self._wait_for_news(receiving)
            with contextlib.suppress(*BROKEN):
                await call.write(pb.ConnectRequest(goodbye=pb.Goodbye(reason="shutdown")))
        finally:
            receiving.cancel()
            call.cancel()
            await asyncio.wait({receiving})
        return next_due

    async def _wait_for_news(self, receiving: asyncio.Task[None]) -> None:
        """Waits for news. Raises TimeoutError when there are none, RpcError when the stream ended."""
        self._arrived.clear()
        async with asyncio.timeout(LAST_SECONDS):
            await self._arrived.wait()
        if receiving.done():
            receiving.result()
            raise TimeoutError("the plane ended the stream")

    async def _receive(self, call: Any) -> None:
        try:
            async for message in call:
                kind = message.WhichOneof("message")
                if kind == "settings" and message.settings.credits:
                    self._window = min(WINDOW, message.settings.credits)
                elif kind == "ack":
                    self._acknowledge(message.ack.sequence)
                elif kind == "rejection":
                    # It will never be acknowledged, and counts as lost.
                    self._due = deque(due for due in self._due if due[0] != message.rejection.sequence)
                self._arrived.set()
        finally:
            self._arrived.set()

    def _acknowledge(self, sequence: int) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= sequence:
            self.stats.acknowledged += 1
            self.stats.delays.append(now - self._due.popleft()[1])

    def _hello(self) -> pb.Hello:
        return pb.Hello(boot_id=self.boot_id, agent_version="load", package=PACKAGE, release=RELEASE)

    def _beat(self) -> pb.Beat:
        made = pb.Beat(
            boot_id=self.boot_id,
            sequence=self._sequence,
            webhook_attempts=self._sequence * 12,
            release=RELEASE,
            environment={"cms": "load"},
            health=pb.HEALTH_HEALTHY,
        )
        made.time.GetCurrentTime()
        return made


@contextlib.asynccontextmanager
async def joined_agents(
    ingest: Any, address: str, count: int, rate: float, stats: LoadStats
) -> AsyncIterator[list[LoadAgent]]:
    """So many agents that joined; they are retired afterwards. Raises Problem or RpcError when they may not join."""
    run = uuid.uuid4().hex[:8]
    channels = [open_channel(address) for _ in range(-(-count // PER_CHANNEL))]
    agents: list[LoadAgent] = []

    async def join(number: int) -> None:
        channel = channels[number // PER_CHANNEL]
        credential = await _enroll(ingest, channel, f"load-{run}-{number}")
        stub: Any = agent_pb2_grpc.AgentGatewayStub(channel)
        agents.append(LoadAgent(credential, stub, rate, stats))

    try:
        await _for_each(range(count), join)
        yield agents
    finally:
        await asyncio.shield(asyncio.ensure_future(_leave(ingest, agents, channels)))


async def _enroll(ingest: Any, channel: grpc.aio.Channel, label: str) -> Credential:
    request = ingest_pb2.CreateEnrollmentTokenRequest(
        request_id=str(uuid.uuid4()), merchant=MERCHANT, package=PACKAGE, label=label
    )
    token = (await ingest.CreateEnrollmentToken(request, timeout=CALL_SECONDS)).token
    return await enroll(
        channel, token=token, enrollment_key=str(uuid.uuid4()), package=PACKAGE, release=RELEASE, merchant=MERCHANT
    )


async def _leave(ingest: Any, agents: Sequence[LoadAgent], channels: Sequence[grpc.aio.Channel]) -> None:
    async def retire(agent: LoadAgent) -> None:
        request = ingest_pb2.RetirePluginRequest(
            name=f"plugins/{agent.credential.plugin}", request_id=str(uuid.uuid4()), reason=RETIRED
        )
        # What could not be retired is silent soon, and shown as such.
        with contextlib.suppress(Problem, grpc.RpcError):
            await ingest.RetirePlugin(request, timeout=CALL_SECONDS)

    await _for_each(list(agents), retire)
    for channel in channels:
        await channel.close()


async def _for_each(items: Sequence[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(item: Any) -> None:
        async with places:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
