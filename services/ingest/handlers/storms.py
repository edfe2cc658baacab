"""Questions about storms, and the person who says that one is over."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import Invalid, NotFound
from libs.common.telemetry import use_traceparent
from prunella.v1 import ingest_pb2 as pb
from services.ingest import storm
from services.ingest.context import ServiceContext
from services.ingest.gateway.identity import is_uuid
from services.ingest.store import storms as store
from services.ingest.store.storms import Row
from services.ingest.storm import State
from services.ingest.wire import storms as wire

Context = grpc.aio.ServicerContext[Any, Any]
LONGEST_REASON = 2000


class StormHandlers:
    """The part of `IngestService` about storms."""

    ctx: ServiceContext

    async def ListStorms(self, request: pb.ListStormsRequest, context: Context) -> pb.ListStormsResponse:
        """Storms, newest first. Raises Invalid for a state that is none and for bad paging."""
        del context
        if request.state and request.state not in wire.STATES:
            raise Invalid(
                f"state must be raging or over, not {request.state[:40]!r}; leave it out for all",
                reason="STATE_UNKNOWN",
                field="state",
            )
        state = str(wire.STATES[request.state]) if request.state else ""
        filters = {"package": request.package, "state": state}
        query = {"list": "storms", **filters}
        size = paging.page_size(request.page_size)
        after = paging.open_token(request.page_token, query) or [""]
        async with self.ctx.database.reading() as tx:
            found = await store.page(tx, filters, str(after[0]), size + 1)
        more = paging.token(query, [found[size - 1].id]) if len(found) > size else ""
        return pb.ListStormsResponse(storms=[wire.resource(row) for row in found[:size]], next_page_token=more)

    async def EndStorm(self, request: pb.EndStormRequest, context: Context) -> pb.EndStormResponse:
        """Ends a storm. Raises NotFound, Refused when it is over already, Invalid without a reason."""
        actor = access.caller(context)
        wanted = names.parse("storms", request.name)
        if len(request.reason) > LONGEST_REASON or "\0" in request.reason:
            raise Invalid(
                f"reason may have {LONGEST_REASON} characters and no NUL", reason="REASON_TOO_LONG", field="reason"
            )
        async with self.ctx.database.reading() as tx:
            known = await store.get(tx, wanted) if is_uuid(wanted) else None
        if known is None:
            raise NotFound(f"there is no storm {wanted}", reason="STORM_UNKNOWN", field="name", storm=wanted)
        pair = known.storm

        async def work(tx: Transaction) -> Row:
            await store.lock(tx, pair.package, pair.type)
            row = await store.get(tx, wanted)
            assert row is not None
            if request.request_id and row.request_id == request.request_id and row.storm.state is State.CALM:
                return row
            step = storm.end(row.storm, actor, request.reason, tx.now)
            row = replace(row, storm=step.storm, end_reason=step.reason, request_id=request.request_id)
            await store.save(tx, row)
            tx.record(wire.told(row, step))
            return row

        with use_traceparent(known.traceparent), self.ctx.telemetry.span("a person's word"):
            return pb.EndStormResponse(storm=wire.resource(await self.ctx.database.transaction(work)))
