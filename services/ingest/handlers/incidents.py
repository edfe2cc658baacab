"""Questions about incidents, and what people say about them."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import NotFound
from libs.common.telemetry import use_traceparent
from prunella.v1 import ingest_pb2 as pb
from services.ingest import incidents
from services.ingest.context import ServiceContext, keep, locked
from services.ingest.gateway.identity import is_uuid
from services.ingest.incidents import Incident, Step
from services.ingest.store import incidents as store
from services.ingest.wire import incidents as wire

Context = grpc.aio.ServicerContext[Any, Any]


class IncidentHandlers:
    """The part of `IngestService` about incidents."""

    ctx: ServiceContext

    async def GetIncident(self, request: pb.GetIncidentRequest, context: Context) -> pb.GetIncidentResponse:
        """One incident."""
        del context
        return pb.GetIncidentResponse(incident=wire.resource(await self._incident(request.name)))

    async def ListIncidents(self, request: pb.ListIncidentsRequest, context: Context) -> pb.ListIncidentsResponse:
        """Incidents, newest first."""
        del context
        plugin = request.plugin.removeprefix("plugins/")
        filters = {
            "plugin": plugin if not plugin or is_uuid(plugin) else NOBODY,
            "state": request.state,
            "type": request.type,
            "severity": int(request.severity),
        }
        size = paging.page_size(request.page_size)
        after = paging.open_token(request.page_token, filters) or [""]
        async with self.ctx.database.reading() as tx:
            found = await store.page(tx, filters, str(after[0]), size + 1)
        more = paging.token(filters, [found[size - 1].id]) if len(found) > size else ""
        return pb.ListIncidentsResponse(incidents=[wire.resource(one) for one in found[:size]], next_page_token=more)

    async def CloseIncident(self, request: pb.CloseIncidentRequest, context: Context) -> pb.CloseIncidentResponse:
        """Closed by a person; one that is over stays as it is."""
        reason = request.reason or "closed by a person"
        moved = await self._move(request.name, context, lambda one, now: incidents.closed(one, reason, now))
        return pb.CloseIncidentResponse(incident=wire.resource(moved))

    async def EscalateIncident(
        self, request: pb.EscalateIncidentRequest, context: Context
    ) -> pb.EscalateIncidentResponse:
        """Handed to a person; one that is over or with a person stays as it is."""
        reason = request.reason or "a person asked for it"
        moved = await self._move(request.name, context, lambda one, now: incidents.escalated(one, reason, now))
        return pb.EscalateIncidentResponse(incident=wire.resource(moved))

    async def _incident(self, name: str) -> Incident:
        wanted = names.parse("incidents", name)
        async with self.ctx.database.reading() as tx:
            found = await store.get(tx, wanted) if is_uuid(wanted) else None
        if found is None:
            raise NotFound(f"there is no incident {wanted}", reason="INCIDENT_UNKNOWN", field="name", incident=wanted)
        return found

    async def _move(self, name: str, context: Context, step: Callable[[Incident, datetime], Step]) -> Incident:
        known = await self._incident(name)
        actor = access.caller(context)

        async def work(tx: Transaction) -> Incident:
            before = await locked(tx, known.id, known.plugin)
            assert before is not None
            moved = step(before, tx.now)
            await keep(tx, before, moved, actor=actor)
            return moved.incident

        with use_traceparent(known.traceparent), self.ctx.telemetry.span("a person's word"):
            moved = await self.ctx.database.transaction(work)
        self.ctx.committer.forget(known.plugin)
        return moved


# Matches no plugin: a filter by a word that is no id finds nothing.
NOBODY = "00000000-0000-0000-0000-000000000000"
