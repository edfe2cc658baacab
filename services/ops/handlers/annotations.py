"""Someone asked: annotations of incidents, who is assigned to one and its comments."""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

from typing import Any

from libs.common import access, names
from libs.common.database import Transaction
from libs.common.errors import NotFound
from prunella.v1 import annotations_pb2, ops_pb2_grpc
from prunella.v1.events_pb2 import Event
from services.ops import incident_annotations as heart
from services.ops.context import ServiceContext
from services.ops.incident_annotations import Assignment, Comment
from services.ops.store import annotations as store
from services.ops.store import timeline
from services.ops.timeline import TimelineFilter
from services.ops.wire import annotations as wire


class AnnotationHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The annotations' part of OpsService."""

    ctx: ServiceContext

    async def GetIncidentAnnotations(
        self, request: annotations_pb2.GetIncidentAnnotationsRequest, _context: Any
    ) -> annotations_pb2.GetIncidentAnnotationsResponse:
        """The assignment and the comments of an incident. Raises NotFound for one without a fact."""
        about = await self._about(request.name)
        async with self.ctx.database.reading() as tx:
            found = wire.annotations_of(await store.get(tx, about.incident))
        return annotations_pb2.GetIncidentAnnotationsResponse(annotations=found)

    async def AssignIncident(
        self, request: annotations_pb2.AssignIncidentRequest, context: Any
    ) -> annotations_pb2.AssignIncidentResponse:
        """Assigns an incident to a person or to nobody; to its assignee changes nothing. Raises Invalid."""
        actor = access.caller(context)
        earlier = await self.ctx.requests.earlier(request, annotations_pb2.AssignIncidentResponse)
        if earlier is not None:
            return earlier
        assignee, reason = heart.assignee(request.assignee), heart.reason(request.reason)
        about = await self._about(request.name)

        async def work(tx: Transaction) -> annotations_pb2.AssignIncidentResponse:
            await store.lock(tx, about.incident)
            known = (await store.get(tx, about.incident)).assignment
            before = known.assignee if known else ""
            if before != assignee:
                id_ = names.new_id(tx.now)
                made = Assignment(id_, about.incident, about.merchant, assignee, actor, tx.now)
                await store.insert(tx, made)
                tx.record(wire.assigned(made, before, about, reason))
            found = wire.annotations_of(await store.get(tx, about.incident))
            return annotations_pb2.AssignIncidentResponse(annotations=found)

        return await self.ctx.requests.once(request, annotations_pb2.AssignIncidentResponse, work)

    async def CommentOnIncident(
        self, request: annotations_pb2.CommentOnIncidentRequest, context: Any
    ) -> annotations_pb2.CommentOnIncidentResponse:
        """Adds a comment. Raises Invalid for nothing, or too much."""
        actor = access.caller(context)
        earlier = await self.ctx.requests.earlier(request, annotations_pb2.CommentOnIncidentResponse)
        if earlier is not None:
            return earlier
        text = heart.text(request.text)
        about = await self._about(request.name)

        async def work(tx: Transaction) -> annotations_pb2.CommentOnIncidentResponse:
            await store.lock(tx, about.incident)
            made = Comment(names.new_id(tx.now), about.incident, about.merchant, text, actor, tx.now)
            await store.insert(tx, made)
            tx.record(wire.commented(made, about))
            found = wire.annotations_of(await store.get(tx, about.incident))
            return annotations_pb2.CommentOnIncidentResponse(annotations=found)

        return await self.ctx.requests.once(request, annotations_pb2.CommentOnIncidentResponse, work)

    async def _about(self, name: str) -> Event:
        """The newest fact of an incident: it says which plugin and merchant it is about. Raises NotFound."""
        incident = names.parse("incidents", name)
        async with self.ctx.database.reading() as tx:
            rows = await timeline.newest(tx, TimelineFilter(incident=incident), before=timeline.END, limit=1)
        if not rows:
            raise NotFound(f"there is no incident {incident} on the timeline", reason="INCIDENT_UNKNOWN", field="name")
        return Event.FromString(rows[0].payload)
