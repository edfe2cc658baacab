"""Incidents: everybody may read them, operators close and escalate them."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import known
from libs.common.telemetry import use_traceparent
from prunella.v1 import ingest_pb2 as pb
from services.ingest import incident_lifecycle
from services.ingest.context import ServiceContext, lock_incident, save_transition
from services.ingest.incident import Incident, Transition
from services.ingest.store import incidents as store
from services.ingest.wire import incidents as wire

Context = grpc.aio.ServicerContext[Any, Any]
MovedT = TypeVar("MovedT", pb.CloseIncidentResponse, pb.EscalateIncidentResponse)


class IncidentHandlers:
    """The part of `IngestService` about incidents."""

    ctx: ServiceContext

    async def GetIncident(self, request: pb.GetIncidentRequest, _context: Context) -> pb.GetIncidentResponse:
        """One incident."""
        return pb.GetIncidentResponse(incident=wire.resource(await self._incident(request.name)))

    async def ListIncidents(self, request: pb.ListIncidentsRequest, _context: Context) -> pb.ListIncidentsResponse:
        """Incidents, newest first."""
        filters = {
            "plugin": plugin_filter(request.plugin),
            "state": request.state,
            "type": request.type,
            "severity": int(request.severity),
        }
        page = paging.page(request, filters, UUID)
        async with self.ctx.database.reading() as tx:
            rows = await store.page(tx, filters, page)
        found, more = page.cut(rows, lambda incident: [incident.id])
        return pb.ListIncidentsResponse(incidents=[wire.resource(one) for one in found], next_page_token=more)

    async def CloseIncident(self, request: pb.CloseIncidentRequest, context: Context) -> pb.CloseIncidentResponse:
        """Closed by an operator; one that is over stays as it is."""
        reason, actor = request.reason or "closed by a person", access.caller(context)
        return await self._move(
            request,
            pb.CloseIncidentResponse,
            actor,
            lambda one, now: incident_lifecycle.closed(one, reason, now, by=actor),
        )

    async def EscalateIncident(
        self, request: pb.EscalateIncidentRequest, context: Context
    ) -> pb.EscalateIncidentResponse:
        """Handed to a person; one that is over or with a person stays as it is."""
        reason = request.reason or "a person asked for it"
        return await self._move(
            request,
            pb.EscalateIncidentResponse,
            access.caller(context),
            lambda one, now: incident_lifecycle.escalated(one, reason, now),
        )

    async def _incident(self, name: str) -> Incident:
        wanted = names.parse("incidents", name)
        async with self.ctx.database.reading() as tx:
            return known(await store.get(tx, wanted) if names.is_uuid(wanted) else None, "incident", wanted)

    async def _move(
        self,
        request: pb.CloseIncidentRequest | pb.EscalateIncidentRequest,
        response: type[MovedT],
        actor: str,
        transition: Callable[[Incident, datetime], Transition],
    ) -> MovedT:
        # First, for what it was about may be gone by now.
        earlier = await self.ctx.requests.earlier(request, response)
        if earlier is not None:
            return earlier
        found = await self._incident(request.name)

        async def work(tx: Transaction) -> MovedT:
            before = await lock_incident(tx, found.id, found.plugin)
            assert before is not None
            after = transition(before, tx.now)
            await save_transition(tx, before, after, actor=actor)
            return response(incident=wire.resource(after.incident))

        with use_traceparent(found.traceparent), self.ctx.telemetry.span("operator change"):
            answer = await self.ctx.requests.once(request, response, work)
        self.ctx.committer.forget(found.plugin)
        return answer


def plugin_filter(name: str) -> str:
    """The id in a filter by plugin, empty for all; what is no id matches no plugin."""
    plugin = names.id_of(name)
    return plugin if not plugin or names.is_uuid(plugin) else NO_PLUGIN


NO_PLUGIN = "00000000-0000-0000-0000-000000000000"
