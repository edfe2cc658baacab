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
AT_ONCE = 16
PER_CHANNEL = 100
CALL_SECONDS = 15.0
LAST_SECONDS = 10.0  # for acknowledgements of the last beats
AGAIN_SECONDS = 1.0
# A stream that ended under a write is told of in a way of its own.
BROKEN = (grpc.RpcError, asyncio.InvalidStateError, TimeoutError)
RETIRED = "the load test is over"


@dataclass
class Seen:
    """What a run saw; delays in seconds from when a beat was due to its acknowledgement."""

    sent: int = 0
    acknowledged: int = 0
    broken: int = 0
    delays: list[float] = field(default_factory=list)


@dataclass
class BeatingAgent:
    """One agent that sends `rate` beats per second from `begin` until `until` (both of the monotonic clock)."""

    credential: Credential
    stub: Any
    rate: float
    seen: Seen
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))
    _due: deque[tuple[int, float]] = field(default_factory=deque)
    _sequence: int = 0
    _window: int = WINDOW
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, begin: float, until: float) -> None:
        """Beats; comes back after a stream that broke. Beats that were under way then are not sent again."""
        # Agents of one fleet do not beat in the same instant.
        following = begin + random.random() / self.rate  # noqa: S311 - spreads load, guards nothing
        while time.monotonic() < until:
            following = max(following, time.monotonic())
            try:
                following = await self._stream(following, until)
            except BROKEN:
                self.seen.broken += 1
                self._due.clear()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _stream(self, following: float, until: float) -> float:
        metadata = (("authorization", f"Plugin {self.credential.plugin}:{self.credential.secret}"),)
        call = self.stub.Connect(metadata=metadata)
        hearing = asyncio.create_task(self._hear(call))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await call.write(pb.ConnectRequest(hello=self._hello()))
            while following < until:
                await asyncio.sleep(following - time.monotonic())
                while len(self._due) >= self._window:
                    await self._heard(hearing)
                self._sequence += 1
                self._due.append((self._sequence, following))
                self.seen.sent += 1
                await call.write(pb.ConnectRequest(beat=self._beat()))
                following += 1 / self.rate
            while self._due:
                await self._heard(hearing)
            with contextlib.suppress(*BROKEN):
                await call.write(pb.ConnectRequest(goodbye=pb.Goodbye(reason="shutdown")))
        finally:
            hearing.cancel()
            call.cancel()
            await asyncio.wait({hearing})
        return following

    async def _heard(self, hearing: asyncio.Task[None]) -> None:
        """Waits for news. Raises TimeoutError when there are none, RpcError when the stream ended."""
        self._news.clear()
        async with asyncio.timeout(LAST_SECONDS):
            await self._news.wait()
        if hearing.done():
            hearing.result()
            raise TimeoutError("the plane ended the stream")

    async def _hear(self, call: Any) -> None:
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
                self._news.set()
        finally:
            self._news.set()

    def _acknowledge(self, sequence: int) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= sequence:
            self.seen.acknowledged += 1
            self.seen.delays.append(now - self._due.popleft()[1])

    def _hello(self) -> pb.Hello:
        return pb.Hello(boot_id=self.boot, agent_version="load", package=PACKAGE, release=RELEASE)

    def _beat(self) -> pb.Beat:
        made = pb.Beat(
            boot_id=self.boot,
            sequence=self._sequence,
            webhook_attempts=self._sequence * 12,
            release=RELEASE,
            environment={"cms": "load"},
            health=pb.HEALTH_HEALTHY,
        )
        made.time.GetCurrentTime()
        return made


@contextlib.asynccontextmanager
async def joined(ingest: Any, address: str, count: int, rate: float, seen: Seen) -> AsyncIterator[list[BeatingAgent]]:
    """So many agents that joined; they are retired afterwards. Raises Problem or RpcError when they may not join."""
    run = uuid.uuid4().hex[:8]
    channels = [open_channel(address) for _ in range(-(-count // PER_CHANNEL))]
    agents: list[BeatingAgent] = []

    async def join(number: int) -> None:
        channel = channels[number // PER_CHANNEL]
        credential = await _enroll(ingest, channel, f"load-{run}-{number}")
        stub: Any = agent_pb2_grpc.AgentGatewayStub(channel)
        agents.append(BeatingAgent(credential, stub, rate, seen))

    try:
        await _each(range(count), join)
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


async def _leave(ingest: Any, agents: Sequence[BeatingAgent], channels: Sequence[grpc.aio.Channel]) -> None:
    async def retire(agent: BeatingAgent) -> None:
        request = ingest_pb2.RetirePluginRequest(
            name=f"plugins/{agent.credential.plugin}", request_id=str(uuid.uuid4()), reason=RETIRED
        )
        # What could not be retired is silent soon, and shown as such.
        with contextlib.suppress(Problem, grpc.RpcError):
            await ingest.RetirePlugin(request, timeout=CALL_SECONDS)

    await _each(list(agents), retire)
    for channel in channels:
        await channel.close()


async def _each(items: Sequence[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> None:
        async with places:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
