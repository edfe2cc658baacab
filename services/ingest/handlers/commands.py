"""Commands: patcher issues and withdraws them, everybody may read."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import grpc

from libs.common import names, paging
from libs.common.database import Transaction
from libs.common.errors import Conflict, NotFound, Refused, known
from libs.common.telemetry import counter, current_traceparent
from prunella.v1 import agent_pb2
from prunella.v1 import ingest_pb2 as pb
from services.ingest.command_lifecycle import ABOUT_EXISTING, Command, State
from services.ingest.context import ServiceContext
from services.ingest.handlers.incidents import plugin_filter
from services.ingest.store import commands as store
from services.ingest.wire import commands as wire

Context = grpc.aio.ServicerContext[Any, Any]

_issued = counter("commands_issued_total", "Commands that were issued, by kind", ("kind",))
_background: set[asyncio.Task[None]] = set()


class CommandHandlers:
    """The part of `IngestService` about commands."""

    ctx: ServiceContext

    async def IssueCommand(self, request: pb.IssueCommandRequest, _context: Context) -> pb.IssueCommandResponse:
        """Saves a command and has it delivered; a repeat returns the first."""
        wanted = wire.issued(request, self.ctx.clock.now(), current_traceparent())

        new: list[Command] = []

        async def work(tx: Transaction) -> pb.IssueCommandResponse:
            new.clear()
            state = await store.lock_plugin(tx, wanted.plugin) if names.is_uuid(wanted.plugin) else None
            if state is None:
                raise NotFound("there is no such plugin", reason="PLUGIN_UNKNOWN", field="plugin")
            command = await store.issue(tx, wanted, makes=wanted.kind not in ABOUT_EXISTING)
            if command is not None:
                tx.record(wire.issued_fact(command))
                new.append(command)
                return _named(command)
            earlier = await store.by_request(tx, wanted.request_id)
            if earlier is None:
                raise Refused(f"the plugin is {state}", reason=f"PLUGIN_{state.upper()}", field="plugin")
            return _named(_same(earlier, wanted))

        answer = await self.ctx.requests.once(request, pb.IssueCommandResponse, work)
        for command in new:
            _issued.labels(wire.kind_name(command.kind)).inc()
            self.ctx.sessions.offer(command)
            task = asyncio.create_task(self.ctx.bus.wake(command.plugin))
            _background.add(task)
            task.add_done_callback(_background.discard)
        # Kept is only its id, for a command may carry a whole configuration.
        stored = new[0] if new else await self._command(names.command(answer.command.id))
        return pb.IssueCommandResponse(command=wire.message(stored))

    async def WithdrawCommand(
        self, request: pb.WithdrawCommandRequest, _context: Context
    ) -> pb.WithdrawCommandResponse:
        """Ends a command that is still live; any other stays as it is."""
        earlier = await self.ctx.requests.earlier(request, pb.WithdrawCommandResponse)
        if earlier is not None:
            return earlier
        found = await self._command(request.name)
        reason = request.reason or "withdrawn"

        async def work(tx: Transaction) -> pb.WithdrawCommandResponse:
            await store.end(tx, found.id, State.WITHDRAWN, reason)
            after = known(await store.get(tx, found.id), "command", found.id)
            return pb.WithdrawCommandResponse(command=wire.resource(after))

        return await self.ctx.requests.once(request, pb.WithdrawCommandResponse, work)

    async def GetCommand(self, request: pb.GetCommandRequest, _context: Context) -> pb.GetCommandResponse:
        """One command."""
        return pb.GetCommandResponse(command=wire.resource(await self._command(request.name)))

    async def ListCommands(self, request: pb.ListCommandsRequest, _context: Context) -> pb.ListCommandsResponse:
        """Commands, newest first."""
        filters = {"plugin": plugin_filter(request.plugin), "attempt": names.id_of(request.attempt)}
        page = paging.page(request, filters, UUID)
        async with self.ctx.database.reading() as tx:
            rows = await store.page(tx, filters, page)
        found, more = page.cut(rows, lambda command: [command.id])
        return pb.ListCommandsResponse(commands=[wire.resource(one) for one in found], next_page_token=more)

    async def _command(self, name: str) -> Command:
        wanted = names.parse("commands", name)
        async with self.ctx.database.reading() as tx:
            return known(await store.get(tx, wanted) if names.is_uuid(wanted) else None, "command", wanted)


def _named(command: Command) -> pb.IssueCommandResponse:
    return pb.IssueCommandResponse(command=agent_pb2.Command(id=command.id))


def _same(earlier: Command, wanted: Command) -> Command:
    """The earlier command when the request is the same. Raises Conflict when only its id is."""
    if (earlier.plugin, earlier.attempt, earlier.kind, earlier.digest) != (
        wanted.plugin,
        wanted.attempt,
        wanted.kind,
        wanted.digest,
    ):
        raise Conflict("this request_id made another command", reason="REQUEST_ID_REUSED", field="request_id")
    return earlier
