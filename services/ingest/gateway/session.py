"""One agent's stream: what it sends is stored before it is acknowledged, its commands are written until it has them.

Rule: a session begins with Hello, under a new epoch; an older one loses. Beats go to the group commit, receipts and
questions are answered in tasks of their own, bounded in number; errors are forwarded to the queue beside all that. All
writing is done by one task that exists only while there is something to write; an agent that does not read for five
seconds is disconnected, and its commands stay.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any

import grpc

from libs.common.cancellation import cancel_and_wait
from libs.common.errors import Denied, Invalid, Problem, Unavailable
from libs.common.telemetry import histogram
from libs.common.text import clean_line
from prunella.v1 import agent_pb2 as pb
from services.ingest import command_lifecycle
from services.ingest.command_lifecycle import Command
from services.ingest.context import ServiceContext
from services.ingest.gateway import departure, permits, receipts
from services.ingest.gateway.batch import Entry
from services.ingest.gateway.error_stream import ErrorStream
from services.ingest.plugin_state import PluginState
from services.ingest.store import commands as command_store
from services.ingest.store.plugins import AgentHello, Identity
from services.ingest.wire import beats
from services.ingest.wire import commands as wire
from services.ingest.wire.timestamps import span

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
WRITE_SECONDS = 5.0
STORED_SECONDS = 5.0
CREDITS = 64
MOST_TASKS = 8
MOST_OUTGOING = 256
RETRY_SECONDS = 2.0
MOST_CAPABILITIES = 16

_first_write = histogram("command_first_write_seconds", "Time from a command's issue to its first write to the stream")

Context = grpc.aio.ServicerContext[pb.ConnectRequest, pb.ConnectResponse]


class Session:
    """One stream; `run` lasts as long as it does."""

    def __init__(self, ctx: ServiceContext, identity: Identity, context: Context) -> None:
        self.plugin = identity.plugin
        self.epoch = 0
        self._ctx = ctx
        self._identity = identity
        self._context = context
        self._errors = ErrorStream(ctx.error_forwarder, identity, self._send)
        self._outgoing: deque[tuple[pb.ConnectResponse, Command | None]] = deque()
        self._acked: tuple[str, int] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: dict[str, datetime] = {}
        self._fresh = True
        self._checking = False
        self._check_again = False
        self._closing = ""
        self._over = False
        self._ended = asyncio.Event()
        self._unstored = 0
        self._stored = asyncio.Event()
        self._stored.set()

    async def run(self, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        """Serves the agent until either side ends. Raises Problem when the session may not begin."""
        hello = await _hello(requests)
        self._errors.release = hello.release
        state = await self._begin(hello)
        self.epoch = state.session_epoch
        self._ctx.committer.forget(self.plugin)
        self._ctx.sessions.add(self)
        reader = asyncio.create_task(self._read(requests))
        closed = asyncio.create_task(self._ended.wait())
        try:
            await self._settings(pending=state.commands_pending)
            if state.commands_pending:
                self.check_commands()
            await asyncio.wait({reader, closed}, return_when=asyncio.FIRST_COMPLETED)
            if self._closing:
                await self._drain()
            elif reader.done():
                # What went wrong while reading is the answer to the call, not a quiet end.
                await reader
        finally:
            self._over = True
            self._ctx.sessions.remove(self)
            # Before anything is awaited: a call that is cancelled once more would not come back here.
            self._ctx.sessions.note_end(self.plugin, self.epoch)
            for task in (self._writer, *self._tasks):
                if task is not None:
                    task.cancel()
            await cancel_and_wait([reader, closed])

    def check_commands(self) -> None:
        """Writes the commands that are due; called again while looking, it looks once more."""
        if self._checking:
            self._check_again = True
        elif not self._closing:
            self._checking = True
            self._spawn(self._deliver(), bounded=False)

    def offer(self, command: Command) -> None:
        """Writes a command that was just issued, without a look."""
        if not self._closing and command.id not in self._written:
            now = self._written[command.id] = self._ctx.clock.now()
            self._send(pb.ConnectResponse(command=wire.message(command, now)), command)

    def close(self, reason: str) -> None:
        """Tells the agent to come back, and ends."""
        if not self._closing:
            self._closing = reason
            log.info("the session of plugin %s is ended: %s", self.plugin, reason)
            delay = random.uniform(0, RETRY_SECONDS)  # noqa: S311 - spreads load, guards nothing
            self._send(pb.ConnectResponse(disconnect=pb.Disconnect(reason=reason, retry_delay=span(delay))))
            self._ended.set()

    async def _begin(self, hello: pb.Hello) -> PluginState:
        capabilities = (clean_line(one, 64).replace(",", "") for one in hello.capabilities[:MOST_CAPABILITIES])
        reported = AgentHello(self.plugin, tuple(capabilities), clean_line(hello.agent_version, 64))
        state = await self._ctx.sessions.begin(reported)
        if state is None:
            self._ctx.identities.forget(self.plugin)
            raise Denied("the plugin is barred; it takes a person to change that", reason="PLUGIN_BARRED")
        return state

    async def _read(self, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        committer = self._ctx.committer
        async for message in requests:
            kind = message.WhichOneof("message")
            if kind == "beat":
                await committer.room()
                self._beat(message.beat)
            elif kind == "result":
                await self._room()
                self._spawn(self._result(message.result))
            elif kind == "begin_apply":
                await self._room()
                self._spawn(self._permit(message.begin_apply))
            elif kind == "errors":
                self._errors.take(message.errors)
            elif kind == "received":
                await self._room()
                self._spawn(self._received(message.received.command))
            elif kind == "goodbye":
                # A beat that is stored later would bring the plugin back.
                await self._beats_stored()
                await departure.goodbye(self._ctx, self._identity, self.epoch, message.goodbye)
                return

    def _beat(self, message: pb.Beat) -> None:
        now = self._ctx.clock.now().timestamp()
        try:
            beat = beats.beat(message)
        except Invalid as problem:
            self._reject(problem, message.boot_id, message.sequence)
            return
        boot, sequence = beat.boot_id, beat.sequence
        self._errors.release = beat.release or self._errors.release

        def done(problem: Problem | None) -> None:
            self._unstored -= 1
            if not self._unstored:
                self._stored.set()
            if problem is None:
                self._acked = (boot, sequence)
                self._pump()
            elif isinstance(problem, Unavailable):
                self.close("the plane cannot store beats right now")
            elif isinstance(problem, Invalid):
                self._reject(problem, boot, sequence)
            else:
                self.close(problem.message)

        self._unstored += 1
        self._stored.clear()
        self._ctx.committer.add(Entry(self._identity, beat, self.epoch, now, done))

    async def _result(self, result: pb.CommandResult) -> None:
        # The beats sent before a receipt are stored before it: it may end what they show.
        await self._beats_stored()
        try:
            settlement = await receipts.record(self._ctx, self._identity, wire.receipt(result), result)
        except Problem as problem:
            if not isinstance(problem, Unavailable):
                rejection = pb.Rejection(
                    command=result.command, reason=problem.reason, field=problem.field, message=problem.message
                )
                self._send(pb.ConnectResponse(rejection=rejection))
            return
        self._send(pb.ConnectResponse(result_ack=pb.ResultAck(command=result.command, outcome=result.outcome)))
        if settlement.switched or settlement.final:
            await self._settings(pending=True)

    async def _beats_stored(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STORED_SECONDS):
                await self._stored.wait()

    async def _permit(self, question: pb.BeginApply) -> None:
        permit = await permits.ask(self._ctx, self._identity, question)
        self._send(pb.ConnectResponse(permit=permit))

    async def _received(self, command: str) -> None:
        await receipts.received(self._ctx, self._identity, command)

    async def _settings(self, *, pending: bool) -> None:
        settings = self._ctx.settings
        probation = pending and (await receipts.pending(self._ctx, self.plugin))[1]
        interval = min(settings.beat, settings.probation_beat) if probation else settings.beat
        changed = pb.AgentSettings(beat_interval=span(interval), credits=CREDITS, session_epoch=self.epoch)
        self._send(pb.ConnectResponse(settings=changed))

    async def _deliver(self) -> None:
        try:
            while True:
                self._check_again = False
                async with self._ctx.database.reading() as tx:
                    live = await command_store.live_of(tx, self.plugin)
                now = self._ctx.clock.now()
                self._written = {c.id: self._written[c.id] for c in live if c.id in self._written}
                new, self._fresh = self._fresh, False
                for command in live:
                    if command_lifecycle.due(command.state, self._written.get(command.id), now, new_session=new):
                        self._written[command.id] = now
                        self._send(pb.ConnectResponse(command=wire.message(command, now)), command)
                if not self._check_again:
                    break
        finally:
            self._checking = False

    def _reject(self, problem: Problem, boot: str, sequence: int) -> None:
        rejection = pb.Rejection(
            boot_id=boot[:64], sequence=sequence, reason=problem.reason, field=problem.field, message=problem.message
        )
        self._send(pb.ConnectResponse(rejection=rejection))

    def _send(self, message: pb.ConnectResponse, command: Command | None = None) -> None:
        if self._over:
            return
        if len(self._outgoing) >= MOST_OUTGOING:
            log.info("the agent of plugin %s does not read: %d messages wait", self.plugin, len(self._outgoing))
            self._ended.set()
            return
        self._outgoing.append((message, command))
        self._pump()

    def _pump(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._outgoing or self._acked:
                if self._outgoing:
                    message, command = self._outgoing.popleft()
                else:
                    assert self._acked is not None
                    (boot, sequence), self._acked = self._acked, None
                    message, command = pb.ConnectResponse(ack=pb.BeatAck(boot_id=boot, sequence=sequence)), None
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._context.write(message)
                if command is not None:
                    self._note_written(command)
        except (TimeoutError, grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, RuntimeError) as error:
            log.info("the agent of plugin %s does not read: %s", self.plugin, str(error) or type(error).__name__)
            self._ended.set()
        finally:
            self._writer = None

    def _note_written(self, command: Command) -> None:
        now = self._ctx.clock.now()
        if command.first_write_time is None:
            _first_write.observe((now - command.issue_time).total_seconds())
        self._spawn(self._store_written(command.id, now), bounded=False)

    async def _store_written(self, command: str, at: datetime) -> None:
        await receipts.written(self._ctx, command, at)

    async def _room(self) -> None:
        while len(self._tasks) >= MOST_TASKS:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def _spawn(self, work: Coroutine[Any, Any, None], *, bounded: bool = True) -> None:
        task = asyncio.create_task(_quietly(work, self.plugin))
        if bounded:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            _background.add(task)
            task.add_done_callback(_background.discard)

    async def _drain(self) -> None:
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=1.0)


_background: set[asyncio.Task[None]] = set()


async def _hello(requests: AsyncIterator[pb.ConnectRequest]) -> pb.Hello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            first = await anext(requests, None)
    except TimeoutError as error:
        raise Invalid("a session begins with hello, within 10 s", reason="HELLO_MISSING", field="hello") from error
    hello = first.hello if first is not None and first.HasField("hello") else None
    if hello is None or not hello.boot_id or len(hello.boot_id) > 64 or "," in hello.boot_id:
        raise Invalid(
            "a session begins with hello and its boot_id (1 to 64 characters)", reason="HELLO_MISSING", field="hello"
        )
    return hello


async def _quietly(work: Coroutine[Any, Any, None], plugin: str) -> None:
    try:
        await work
    except Problem as problem:
        log.warning("a step for plugin %s failed (%s): %s", plugin, problem.reason, problem.message)
    except Exception:
        log.exception("a step for plugin %s failed", plugin)
