"""Commands: patcher issues and withdraws them, everybody may look."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from libs.common import names, paging
from libs.common.database import Transaction
from libs.common.errors import Conflict, NotFound, Refused
from libs.common.telemetry import counter, current_traceparent
from prunella.v1 import ingest_pb2 as pb
from services.ingest.commands import ABOUT_EXISTING, Command, State
from services.ingest.context import ServiceContext
from services.ingest.gateway.identity import is_uuid
from services.ingest.handlers.incidents import NOBODY
from services.ingest.store import commands as store
from services.ingest.wire import commands as wire

Context = grpc.aio.ServicerContext[Any, Any]

_issued = counter("commands_issued_total", "Commands that were issued, by kind", ("kind",))
_background: set[asyncio.Task[None]] = set()


class CommandHandlers:
    """The part of `IngestService` about commands."""

    ctx: ServiceContext

    async def IssueCommand(self, request: pb.IssueCommandRequest, context: Context) -> pb.IssueCommandResponse:
        """Writes a command down and has it delivered; a repeat returns the first."""
        del context
        asked = wire.issued(request, self.ctx.clock.now(), current_traceparent())
        if not is_uuid(asked.plugin):
            raise NotFound("there is no such plugin", reason="PLUGIN_UNKNOWN", field="plugin")

        async def work(tx: Transaction) -> tuple[Command, bool]:
            known = await store.hold(tx, asked.plugin)
            if known is None:
                raise NotFound("there is no such plugin", reason="PLUGIN_UNKNOWN", field="plugin")
            state, merchant = known
            command = await store.issue(tx, asked, makes=asked.kind not in ABOUT_EXISTING)
            if command is not None:
                tx.record(wire.issued_fact(command, merchant))
                return command, True
            earlier = await store.by_request(tx, asked.request_id)
            if earlier is None:
                raise Refused(f"the plugin is {state}", reason=f"PLUGIN_{state.upper()}", field="plugin")
            return _same(earlier, asked), False

        command, new = await self.ctx.database.transaction(work)
        if new:
            _issued.labels(wire.word(command.kind)).inc()
            self.ctx.sessions.offer(command)
            task = asyncio.create_task(self.ctx.bus.wake(command.plugin))
            _background.add(task)
            task.add_done_callback(_background.discard)
        return pb.IssueCommandResponse(command=wire.message(command))

    async def WithdrawCommand(self, request: pb.WithdrawCommandRequest, context: Context) -> pb.WithdrawCommandResponse:
        """Ends a command that is still live; any other stays as it is."""
        del context
        known = await self._command(request.name)
        reason = request.reason or "withdrawn"
        await self.ctx.database.transaction(lambda tx: store.end(tx, known.id, State.WITHDRAWN, reason))
        return pb.WithdrawCommandResponse(command=wire.record(await self._command(request.name)))

    async def GetCommand(self, request: pb.GetCommandRequest, context: Context) -> pb.GetCommandResponse:
        """One command."""
        del context
        return pb.GetCommandResponse(command=wire.record(await self._command(request.name)))

    async def ListCommands(self, request: pb.ListCommandsRequest, context: Context) -> pb.ListCommandsResponse:
        """Commands, newest first."""
        del context
        plugin = request.plugin.removeprefix("plugins/")
        filters = {
            "plugin": plugin if not plugin or is_uuid(plugin) else NOBODY,
            "attempt": request.attempt.removeprefix("attempts/"),
        }
        size = paging.page_size(request.page_size)
        after = paging.open_token(request.page_token, filters) or [""]
        async with self.ctx.database.reading() as tx:
            found = await store.page(tx, filters, str(after[0]), size + 1)
        more = paging.token(filters, [found[size - 1].id]) if len(found) > size else ""
        return pb.ListCommandsResponse(commands=[wire.record(one) for one in found[:size]], next_page_token=more)

    async def _command(self, name: str) -> Command:
        wanted = names.parse("commands", name)
        async with self.ctx.database.reading() as tx:
            found = await store.get(tx, wanted) if is_uuid(wanted) else None
        if found is None:
            raise NotFound(f"there is no command {wanted}", reason="COMMAND_UNKNOWN", field="name", command=wanted)
        return found


def _same(earlier: Command, asked: Command) -> Command:
    """The earlier command when the request is the same. Raises Conflict when only its id is."""
    if (earlier.plugin, earlier.attempt, earlier.kind, earlier.digest) != (
        asked.plugin,
        asked.attempt,
        asked.kind,
        asked.digest,
    ):
        raise Conflict("this request_id made another command", reason="REQUEST_ID_REUSED", field="request_id")
    return earlier
