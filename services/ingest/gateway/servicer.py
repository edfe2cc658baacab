"""`AgentGateway`: what agents may ask. Identity comes from the credential alone, never from the body."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from libs.common.access import agent_credential
from libs.common.errors import Busy, Invalid, NotFound, Problem, Unavailable
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc, patcher_pb2
from services.ingest.context import ServiceContext
from services.ingest.gateway import enroll, polling, receipts
from services.ingest.gateway.batch import Entry
from services.ingest.gateway.identity import proven
from services.ingest.gateway.session import Session
from services.ingest.store import commands as command_store
from services.ingest.store.plugins import Identity
from services.ingest.wire import beats
from services.ingest.wire import commands as wire
from services.ingest.wire.timestamps import span

Context = grpc.aio.ServicerContext[Any, Any]

COMMIT_SECONDS = 8.0
LARGEST_BATCH = 1000
FETCH_SECONDS = 60.0
MOST_SESSIONS = 50_000
LARGEST_MESSAGE = 256 * 1024


class AgentGateway(agent_pb2_grpc.AgentGatewayServicer):
    """The door for agents."""

    def __init__(self, ctx: ServiceContext) -> None:
        self._ctx = ctx

    async def Enroll(self, request: pb.EnrollRequest, _context: Context) -> pb.EnrollResponse:
        """A token becomes an identity."""
        return await enroll.enroll(self._ctx, request)

    async def Connect(  # type: ignore[override] # answers are written, not yielded
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> None:
        """One agent's stream, until either side ends it."""
        identity = await self._who(context)
        if len(self._ctx.sessions) >= MOST_SESSIONS:
            raise Busy("this replica holds all the sessions it can", reason="SESSIONS_FULL", retry_after=5.0)
        await Session(self._ctx, identity, context).run(request_iterator)

    async def ReportBatch(self, request: pb.ReportBatchRequest, _context: Context) -> pb.ReportBatchResponse:
        """Beats of many plugins; what is not refused is durable."""
        if len(request.beats) > LARGEST_BATCH:
            raise Invalid(
                f"a batch may have {LARGEST_BATCH} beats, not {len(request.beats)}",
                reason="BATCH_TOO_LARGE",
                field="beats",
            )
        known = await self._ctx.identities.many([entry.plugin for entry in request.beats])
        now = self._ctx.clock.now().timestamp()
        answers = _Answers(len(request.beats))
        for index, entry in enumerate(request.beats):
            try:
                identity = proven(known.get(entry.plugin), entry.plugin, entry.secret)
                beat = beats.beat(entry.beat)
                self._ctx.committer.add(Entry(identity, beat, 0, now, answers.done(index)))
            except Problem as problem:
                answers.done(index)(problem)
        refused = await answers.all()
        rejections = [
            pb.BatchRejection(index=index, reason=problem.reason, field=problem.field, message=problem.message)
            for index, problem in sorted(refused.items())
        ]
        return pb.ReportBatchResponse(accepted=len(request.beats) - len(rejections), rejections=rejections)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        """One beat without a stream, answered with the commands that wait; it may be one without a boot.

        Those that switch are handed out only under a permit.
        """
        ctx = self._ctx
        identity = await self._who(context)
        now = ctx.clock.now()
        beat = beats.beat(request.beat, bootless=True)
        answers = _Answers(1)
        entry = Entry(identity, beat, 0, now.timestamp(), answers.done(0))
        ctx.committer.add(entry)
        refused = await answers.all()
        if refused:
            raise refused[0]
        ack = pb.BeatAck(boot_id=beat.boot_id, sequence=beat.sequence)
        if not entry.commands_pending:
            return pb.HeartbeatResponse(ack=ack, beat_interval=span(ctx.settings.poll))
        live, probation = await receipts.pending(ctx, identity.plugin)
        handed = await polling.hand_out(ctx, identity, live)
        interval = ctx.settings.probation_beat if probation else ctx.settings.poll
        return pb.HeartbeatResponse(
            ack=ack, commands=[wire.message(command, now) for command in handed], beat_interval=span(interval)
        )

    async def AckCommand(self, request: pb.AckCommandRequest, context: Context) -> pb.AckCommandResponse:
        """A command is done, with its result."""
        identity = await self._who(context)
        await receipts.record(self._ctx, identity, wire.receipt(request.result), request.result)
        return pb.AckCommandResponse()

    async def FailCommand(self, request: pb.FailCommandRequest, context: Context) -> pb.FailCommandResponse:
        """A command failed, with its reason."""
        identity = await self._who(context)
        await receipts.record(self._ctx, identity, wire.receipt(request.result, failed=True), request.result)
        return pb.FailCommandResponse()

    async def FetchArtifact(
        self, request: pb.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[pb.FetchArtifactResponse]:
        """The bytes of a release a live command of this plugin names, as patcher has them."""
        identity = await self._who(context)
        async with self._ctx.database.reading() as tx:
            live = await command_store.live_of(tx, identity.plugin)
        if request.digest not in {command.digest for command in live if command.digest}:
            raise NotFound("no command of this plugin names this artifact", reason="ARTIFACT_UNKNOWN", field="digest")
        wanted = patcher_pb2.FetchReleaseRequest(digest=request.digest, offset=request.offset)
        async for piece in self._ctx.patcher.FetchRelease(wanted, timeout=FETCH_SECONDS):
            yield pb.FetchArtifactResponse(chunk=piece.chunk, offset=piece.offset, total_size=piece.total_size)

    async def _who(self, context: Context) -> Identity:
        plugin, secret = agent_credential(context)
        return await self._ctx.identities.check(plugin, secret)


class _Answers:
    """The answers to several beats, awaited together."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._refused: dict[int, Problem] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not count:
            self._done.set_result(None)

    def done(self, index: int) -> Any:
        """What to call with the answer to one of them."""

        def done(problem: Problem | None) -> None:
            self._left -= 1
            if problem is not None:
                self._refused[index] = problem
            if not self._left and not self._done.done():
                self._done.set_result(None)

        return done

    async def all(self) -> dict[int, Problem]:
        """Why which were refused. Raises Unavailable when they are not stored in time; sending again is safe."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._done
        except TimeoutError as error:
            raise Unavailable(
                "the beats are not stored yet; send them again", reason="BEATS_WAITING", retry_after=2.0
            ) from error
        return self._refused
