"""Someone asked: the facts that could not be handled."""

from __future__ import annotations

import uuid
from typing import Any

from libs.common import bus, paging
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
        size = paging.page_size(request.page_size)
        after = paging.open_token(request.page_token, query)
        async with self.ctx.database.reading() as reading:
            rows = await bus.dead_letters(reading, consumer=request.consumer, after=after, limit=size + 1)
        token = paging.token(query, [rows[size - 1].at, str(rows[size - 1].event_id)]) if len(rows) > size else ""
        return ops_pb2.ListDeadLettersResponse(
            dead_letters=[wire.dead_letter(row) for row in rows[:size]], next_page_token=token
        )

    async def RedriveDeadLetter(  # noqa: N802
        self, request: ops_pb2.RedriveDeadLetterRequest, _context: Any
    ) -> ops_pb2.RedriveDeadLetterResponse:
        """Hands a parked fact to its consumer again."""
        try:
            event = str(uuid.UUID(request.event_id))
        except ValueError:
            raise Invalid(
                f"event_id must be a UUID, not {request.event_id[:80]!r}", reason="BAD_ID", field="event_id"
            ) from None
        await bus.redrive(self.ctx.database, request.consumer, event)
        return ops_pb2.RedriveDeadLetterResponse()
