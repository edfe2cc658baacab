"""The agent's side of the stream to the plane: beats and results up, commands and permits down.

Rule: what was handed over is sent until it is acknowledged. Beats wait in a bounded spool, results until their
acknowledgement; after every reconnect what is left goes out again. Reconnects are drawn from full jitter, so that a
fleet never returns at once, or as late as the plane asks.

    session = Session("127.0.0.1:7001", credential, hello=lambda: pb.Hello(package="relay", release="1.2.0"),
                      on_command=on_command)
    session.start()                       # one task; thousands may share one `channel=open_channel(plane)`
    session.beat(pb.Beat(errors=3, …))    # at least each `session.beat_interval` s; boot_id, sequence are set here
    answer = await session.begin_apply(command)    # Answer(granted, permit, gate); granted: at most 5 s old, go now
    session.report(pb.CommandResult(…))   # repeated until the plane acknowledges it
    session.report_errors(pb.ErrorReport(…))    # counted by fingerprint, sent at most once a second
    artifact = await session.fetch_artifact(command.digest, command.size)
    await session.stop("shutdown")            # says goodbye; `await session.abort()` does not

`on_command(command)` takes the command over (writes it down, starts a task) and returns; then the receipt is sent.
It runs inside the reader task: awaiting `begin_apply` there would wait for itself. The same command may come twice.
Other callbacks: `on_settings(settings)`, `on_result_ack(result_ack)`, both plain functions.
Figures: `connected`, `beats_sent`, `beats_acknowledged`, `pending_beats`, `errors.pending`, `epoch`, `beat_interval`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from prunella_agent import artifact_download, proxies
from prunella_agent.clock import Clock, SystemClock
from prunella_agent.credential import Credential
from prunella_agent.error_counters import ErrorCounters, occurrence_time
from prunella_agent.spool import Spool

log = logging.getLogger("prunella_agent.session")

PERMIT_SECONDS = 5.0
WRITE_SECONDS = 10.0
REPEAT_RESULT_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
QUIET_SECONDS = 20.0
MAX_CONTROL = 256
BACKOFF = (1.0, 30.0)
NEVER = float("-inf")
OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True)
class PermitResponse:
    """The answer to BeginApply. `gate` says why not; NO_ANSWER when none came in time.

    `expires` is the moment, on the session's monotonic clock, after which a yes is none any more.
    """

    granted: bool
    permit: str = ""
    gate: str = ""
    expires: float = 0.0


def open_channel(plane: str) -> grpc.aio.Channel:
    """A channel that several sessions may share; the environment's proxy is used for a plane elsewhere only."""
    return grpc.aio.insecure_channel(plane, options=[*OPTIONS, proxies.grpc_option(plane)])


@dataclass(slots=True)
class _PendingResult:
    """A result that waits for its acknowledgement; `after` is the last beat before it, `sent` when it last went out.

    It goes out after that beat, unless beats must wait: the plane must not receive the past after what ended it.
    """

    result: pb.CommandResult
    after: int
    sent: float = NEVER


class Session:
    """One agent's session; see the top of this file."""

    connected = False
    epoch = 0
    beats_sent = 0
    beats_acknowledged = 0
    _call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse] | None = None
    _writer: asyncio.Task[None] | None = None
    _task: asyncio.Task[None] | None = None
    _retry_delay: float | None = None
    _received_any = False
    _closing = False
    _sequence = 0
    _credits = 0

    def __init__(
        self,
        plane: str,
        credential: Credential,
        *,
        hello: Callable[[], pb.Hello],
        on_command: Callable[[pb.Command], Awaitable[None]],
        on_settings: Callable[[pb.AgentSettings], None] | None = None,
        on_result_ack: Callable[[pb.ResultAck], None] | None = None,
        boot_id: str = "",
        channel: grpc.aio.Channel | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        backoff: tuple[float, float] = BACKOFF,
        beat_interval: float = 30.0,
        errors: ErrorCounters | None = None,
    ) -> None:
        self.boot_id = boot_id or str(uuid.uuid4())
        self.beat_interval = beat_interval
        self._credential = credential
        self._hello, self._on_command = hello, on_command
        self._on_settings, self._on_result_ack = on_settings, on_result_ack
        self._own_channel = channel is None
        self._channel = channel or open_channel(plane)
        self._stub = agent_pb2_grpc.AgentGatewayStub(self._channel)
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._backoff = backoff
        self._spool = Spool()
        self.errors = errors or ErrorCounters()
        self._timer: asyncio.TimerHandle | None = None
        self._control: deque[pb.ConnectRequest] = deque()
        self._results: dict[tuple[str, int], _PendingResult] = {}
        self._permit_requests: dict[str, tuple[asyncio.Future[pb.Permit], pb.ConnectRequest]] = {}
        self._warned: set[str] = set()
        self._ended = asyncio.Event()

    @property
    def pending_beats(self) -> int:
        """Beats without acknowledgement."""
        return len(self._spool)

    def start(self) -> asyncio.Task[None]:
        """Begins to connect, and to reconnect, until `stop`."""
        if self._task is None:
            self._task = asyncio.create_task(self.run(), name=f"session {self._credential.plugin}")
        return self._task

    async def run(self) -> None:
        """Connects again and again; ends by cancellation, or after a goodbye."""
        failures = 0
        while not self._closing:
            self._received_any, self._retry_delay = False, None
            await self._run_stream()
            failures = 0 if self._received_any else failures + 1
            await self._clock.sleep(self._reconnect_delay(failures))

    def beat(self, beat: pb.Beat) -> None:
        """Hands over one beat; it is sent until it is acknowledged."""
        self._sequence += 1
        beat.boot_id, beat.sequence = self.boot_id, self._sequence
        self._spool.add(beat)
        self._pump()

    def report(self, result: pb.CommandResult) -> None:
        """Hands over the result of a command; it is sent until it is acknowledged."""
        self._results[result.command, result.outcome] = _PendingResult(result, self._sequence)
        self._pump()

    def report_errors(self, *errors: pb.ErrorReport) -> None:
        """Hands over errors; each counts `occurrences` (0 means 1) more of its fingerprint, whatever its id says."""
        for error in errors:
            self.errors.add(error, occurrence_time(error, self._clock))
        self._pump()

    async def begin_apply(self, command: pb.Command) -> PermitResponse:
        """Asks whether the switch may happen now. Only an answer within 5 s of asking, on this clock, is a yes."""
        nonce = str(uuid.uuid4())
        answer: asyncio.Future[pb.Permit] = asyncio.get_running_loop().create_future()
        asked = self._clock.monotonic()
        question = pb.BeginApply(
            command=command.id, attempt=command.attempt, generation=command.generation, fence=command.fence, nonce=nonce
        )
        self._permit_requests[nonce] = (answer, pb.ConnectRequest(begin_apply=question))
        self._enqueue(self._permit_requests[nonce][1])
        try:
            async with asyncio.timeout(PERMIT_SECONDS):
                permit = await answer
        except TimeoutError:
            return PermitResponse(False, gate="NO_ANSWER")
        finally:
            self._permit_requests.pop(nonce, None)
        if permit.granted and self._clock.monotonic() - asked > PERMIT_SECONDS:
            return PermitResponse(False, gate="NO_ANSWER")
        return PermitResponse(permit.granted, permit.permit, permit.gate, asked + PERMIT_SECONDS)

    async def fetch_artifact(self, digest: str, size: int) -> bytes:
        """The bytes of an artifact, resumed where a break left off; the caller verifies them. Raises grpc.RpcError."""
        return await artifact_download.fetch(self._stub, self._credential, self._clock, digest, size)

    async def stop(self, reason: str = "", *, goodbye: pb.Goodbye | None = None) -> None:
        """Says goodbye if there is a stream, waits a moment for what is on its way, and ends."""
        if self._call is not None and self._task is not None:
            self._flush_errors()
            self._enqueue(pb.ConnectRequest(goodbye=goodbye or pb.Goodbye(reason=reason)))
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    while self._writer is not None and self._call is not None:
                        await asyncio.shield(self._writer)
                    if self._call is not None:
                        await self._call.done_writing()
                        self._closing = True
                        await self._ended.wait()
            except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError):
                pass  # the plane notices by itself
        await self.abort()

    def _flush_errors(self) -> None:
        self.errors.skip_pacing()
        errors = self.errors.next(self._clock.monotonic())
        if errors is not None:
            self._enqueue(pb.ConnectRequest(errors=errors))

    async def abort(self) -> None:
        """Ends at once, without a goodbye. Cancels until it has: a cancellation that meets an answer may be lost."""
        if self._task is not None:
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=1.0)
            self._task = None
        self._pump_in(None)
        if self._own_channel:
            await self._channel.close()

    def _reconnect_delay(self, failures: int) -> float:
        if self._retry_delay is not None:
            return self._retry_delay + self._rng.uniform(0, max(1.0, self._retry_delay / 2))
        first, last = self._backoff
        return self._rng.uniform(0, min(last, first * 2 ** min(failures, 16)))

    async def _run_stream(self) -> None:
        call = self._stub.Connect(metadata=self._credential.metadata())
        self._ended.clear()
        try:
            hello = self._hello()
            hello.boot_id = self.boot_id
            async with asyncio.timeout(WRITE_SECONDS):
                await call.write(pb.ConnectRequest(hello=hello))
            self._spool.rewind()
            self.errors.rewind()
            # Questions without an answer go out again, under the same nonce; receipts are the old stream's business.
            self._control = deque(question for _, question in self._permit_requests.values())
            for pending in self._results.values():
                pending.sent = NEVER
            self._call = call
            while True:
                async with asyncio.timeout(QUIET_SECONDS + 2 * self.beat_interval):
                    message = await call.read()
                if not isinstance(message, pb.ConnectResponse):
                    break
                await self._on_message(message)
            self._log_disconnect(await call.code(), await call.details() or "")
        except grpc.aio.AioRpcError as error:
            self._log_disconnect(error.code(), error.details() or "")
        except (TimeoutError, asyncio.InvalidStateError) as error:
            self._log_disconnect(grpc.StatusCode.UNAVAILABLE, repr(error))
        except asyncio.CancelledError:
            # gRPC raises it also when the call, and not this task, was cancelled: a write that took too long.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        except Exception:
            log.exception("the stream to the plane ended on an error of the agent's own")
        finally:
            self._call, self.connected = None, False
            self._ended.set()
            if self._writer is not None:
                self._writer.cancel()
                self._writer = None
            call.cancel()

    async def _on_message(self, message: pb.ConnectResponse) -> None:
        self._received_any = True
        kind = message.WhichOneof("message")
        if kind == "settings":
            self._apply_settings(message.settings)
        elif kind == "ack" and message.ack.boot_id == self.boot_id:
            self.beats_acknowledged += self._spool.acknowledge(message.ack.sequence)
            self._pump()
        elif kind == "command":
            await self._accept_command(message.command)
        elif kind == "permit":
            question = self._permit_requests.get(message.permit.nonce)
            if question is not None and not question[0].done():
                question[0].set_result(message.permit)
        elif kind == "result_ack":
            self._results.pop((message.result_ack.command, message.result_ack.outcome), None)
            if self._on_result_ack:
                self._on_result_ack(message.result_ack)
        elif kind == "errors_ack":
            self.errors.acknowledge(message.errors_ack, self._clock.monotonic())
            for rejection in message.errors_ack.rejections:
                self._warn(rejection)
            self._pump()
        elif kind == "disconnect":
            self._retry_delay = message.disconnect.retry_delay.ToTimedelta().total_seconds()
        elif kind == "rejection":
            self._on_rejection(message.rejection)

    def _apply_settings(self, settings: pb.AgentSettings) -> None:
        self.connected = True
        self._warned.discard("stream")
        interval = settings.beat_interval.ToTimedelta().total_seconds()
        self.beat_interval = interval if interval > 0 else self.beat_interval
        self._credits, self.epoch = settings.credits, settings.session_epoch or self.epoch
        if self._on_settings:
            self._on_settings(settings)
        self._pump()

    async def _accept_command(self, command: pb.Command) -> None:
        try:
            await self._on_command(command)
        except Exception:
            log.exception("command %s could not be taken over; it will be delivered again", command.id)
            return
        self._enqueue(pb.ConnectRequest(received=pb.CommandReceived(command=command.id)))

    def _on_rejection(self, rejection: pb.Rejection) -> None:
        if rejection.command:
            for key in [key for key in self._results if key[0] == rejection.command]:
                result = self._results.pop(key).result
                if self._on_result_ack:
                    self._on_result_ack(pb.ResultAck(command=result.command, outcome=result.outcome))
        if rejection.boot_id == self.boot_id:
            self._spool.drop(rejection.sequence)
        self._warn(rejection)

    def _warn(self, rejection: pb.Rejection | pb.BatchRejection) -> None:
        if rejection.reason not in self._warned and len(self._warned) < MAX_CONTROL:
            self._warned.add(rejection.reason)
            log.warning("the plane rejected a message: %s %s %s", rejection.reason, rejection.field, rejection.message)

    def _log_disconnect(self, code: grpc.StatusCode, details: str) -> None:
        # One line when the stream is lost, none for every try after it.
        if "stream" not in self._warned and not self._closing:
            self._warned.add("stream")
            log.warning("no stream to the plane (%s %s); trying again", code.name, details)

    def _enqueue(self, message: pb.ConnectRequest) -> None:
        if len(self._control) < MAX_CONTROL:
            self._control.append(message)
        self._pump()

    def _pump(self) -> None:
        if self._call is not None and self._writer is None:
            self._writer = asyncio.create_task(self._write(self._call))

    async def _write(self, call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> None:
        try:
            while (message := self._next()) is not None:
                async with asyncio.timeout(WRITE_SECONDS):
                    await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader sees the end of the stream and says why
        except TimeoutError:
            call.cancel()
        finally:
            if self._call is call:
                self._writer = None

    def _next(self) -> pb.ConnectRequest | None:
        if self._control:
            return self._control.popleft()
        now = self._clock.monotonic()
        out_of_credits = bool(self._credits) and self._spool.unacknowledged >= self._credits
        for pending in self._results.values():
            if now - pending.sent >= REPEAT_RESULT_SECONDS and (out_of_credits or self._spool.sent(pending.after)):
                pending.sent = now
                return pb.ConnectRequest(result=pending.result)
        beat = None if out_of_credits else self._spool.next()
        if beat is not None:
            self.beats_sent += 1
            return pb.ConnectRequest(beat=beat)
        errors = self.errors.next(now)
        if errors is None:
            self._pump_in(self.errors.due(now))
        return None if errors is None else pb.ConnectRequest(errors=errors)

    def _pump_in(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._pump)
