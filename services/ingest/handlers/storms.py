"""Storms: everybody may read them, an operator may end one."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import Invalid, known
from libs.common.telemetry import use_traceparent
from prunella.v1 import ingest_pb2 as pb
from services.ingest import storm
from services.ingest.context import ServiceContext
from services.ingest.store import storms as store
from services.ingest.storm import State
from services.ingest.wire import storms as wire

Context = grpc.aio.ServicerContext[Any, Any]
LONGEST_REASON = 2000


class StormHandlers:
    """The part of `IngestService` about storms."""

    ctx: ServiceContext

    async def ListStorms(self, request: pb.ListStormsRequest, _context: Context) -> pb.ListStormsResponse:
        """Storms, newest first. Raises Invalid for a state that is none and for bad paging."""
        if request.state and request.state not in set(State):
            raise Invalid(
                f"state must be ongoing or over, not {request.state[:40]!r}; leave it out for all",
                reason="STATE_UNKNOWN",
                field="state",
            )
        filters = {"package": request.package, "state": request.state}
        page = paging.page(request, {"list": "storms", **filters}, UUID)
        async with self.ctx.database.reading() as tx:
            rows = await store.page(tx, filters, page)
        found, more = page.cut(rows, lambda row: [row.id])
        return pb.ListStormsResponse(storms=[wire.resource(row) for row in found], next_page_token=more)

    async def EndStorm(self, request: pb.EndStormRequest, context: Context) -> pb.EndStormResponse:
        """Ends a storm. Raises NotFound, Refused when it is over already, Invalid without a reason."""
        actor = access.caller(context)
        wanted = names.parse("storms", request.name)
        if len(request.reason) > LONGEST_REASON or "\0" in request.reason:
            raise Invalid(
                f"reason may have {LONGEST_REASON} characters and no NUL", reason="REASON_TOO_LONG", field="reason"
            )
        earlier = await self.ctx.requests.earlier(request, pb.EndStormResponse)
        if earlier is not None:
            return earlier
        async with self.ctx.database.reading() as tx:
            found = known(await store.get(tx, wanted) if names.is_uuid(wanted) else None, "storm", wanted)
        pair = found.storm

        async def work(tx: Transaction) -> pb.EndStormResponse:
            await store.lock(tx, pair.package, pair.type)
            row = await store.get(tx, wanted)
            assert row is not None
            after = storm.end(row.storm, actor, request.reason, tx.now)
            row = replace(row, storm=after.storm, end_reason=after.reason)
            await store.save(tx, row)
            tx.record(wire.fact_of(row, after))
            return pb.EndStormResponse(storm=wire.resource(row))

        with use_traceparent(found.traceparent), self.ctx.telemetry.span("operator change"):
            return await self.ctx.requests.once(request, pb.EndStormResponse, work)
