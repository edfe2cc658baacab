"""Someone asked: the facts that could not be handled."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common import bus, paging
from libs.common.database import Transaction
from libs.common.errors import Invalid
from prunella.v1 import ops_pb2, ops_pb2_grpc
from services.ops import wire
from services.ops.context import ServiceContext


class DeadLetterHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The dead letters' part of OpsService."""

    ctx: ServiceContext

    async def ListDeadLetters(  # noqa: N802
        self, request: ops_pb2.ListDeadLettersRequest, _context: Any
    ) -> ops_pb2.ListDeadLettersResponse:
        """Parked facts, newest first."""
        query = {"consumer": request.consumer}
        page = paging.page(request, query, datetime, UUID)
        async with self.ctx.database.reading() as reading:
            rows = await bus.list_dead_letters(reading, consumer=request.consumer, after=page.after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: [row.create_time, row.event_id])
        return ops_pb2.ListDeadLettersResponse(
            dead_letters=[wire.dead_letter(row) for row in shown], next_page_token=token
        )

    async def RedriveDeadLetter(  # noqa: N802
        self, request: ops_pb2.RedriveDeadLetterRequest, _context: Any
    ) -> ops_pb2.RedriveDeadLetterResponse:
        """Hands a dead letter to its consumer again."""
        try:
            event = str(UUID(request.event_id))
        except ValueError:
            raise Invalid(
                f"event_id must be a UUID, not {request.event_id[:80]!r}", reason="BAD_ID", field="event_id"
            ) from None

        async def work(tx: Transaction) -> ops_pb2.RedriveDeadLetterResponse:
            await bus.redrive(tx, request.consumer, event)
            return ops_pb2.RedriveDeadLetterResponse()

        return await self.ctx.requests.once(request, ops_pb2.RedriveDeadLetterResponse, work)
