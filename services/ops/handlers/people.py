"""What people note about incidents: who takes care of one, and comments."""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

from typing import Any

from libs.common import access, names
from libs.common.database import Transaction
from libs.common.errors import NotFound, Refused
from prunella.v1 import ops_pb2_grpc, people_pb2
from prunella.v1.events_pb2 import Event
from services.ops import notes, wire
from services.ops.context import ServiceContext
from services.ops.notes import Assignment, Comment
from services.ops.store import notes as store
from services.ops.store import timeline
from services.ops.timeline import Wanted

ANY = 2**62


class PeopleHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The people's part of OpsService."""

    ctx: ServiceContext

    async def GetIncidentNotes(
        self, request: people_pb2.GetIncidentNotesRequest, _context: Any
    ) -> people_pb2.GetIncidentNotesResponse:
        """Who takes care of an incident, and what was said. Raises NotFound for one nobody told of."""
        about = await self._about(request.name)
        async with self.ctx.database.reading() as tx:
            return people_pb2.GetIncidentNotesResponse(notes=wire.notes(await store.get(tx, about.incident)))

    async def AssignIncident(
        self, request: people_pb2.AssignIncidentRequest, context: Any
    ) -> people_pb2.AssignIncidentResponse:
        """Gives an incident to a person or to nobody; to who has it already changes nothing. Raises Invalid."""
        actor, asked = access.caller(context), notes.request(request.request_id)
        person, reason = notes.assignee(request.assignee), notes.reason(request.reason)
        about = await self._about(request.name)

        async def work(tx: Transaction) -> notes.Notes:
            await store.lock(tx, about.incident)
            earlier = await store.assignment_of(tx, actor, asked)
            if earlier is not None:
                _same((earlier.incident, earlier.assignee), (about.incident, person))
                return await store.get(tx, about.incident)
            known = (await store.get(tx, about.incident)).assigned
            before = known.assignee if known else ""
            if before != person:
                made = Assignment(names.new_id(tx.now), about.incident, person, actor, asked, tx.now)
                await store.assign(tx, made)
                tx.record(wire.assigned(made, before, about, reason))
            return await store.get(tx, about.incident)

        found = await self.ctx.database.transaction(work)
        return people_pb2.AssignIncidentResponse(notes=wire.notes(found))

    async def CommentOnIncident(
        self, request: people_pb2.CommentOnIncidentRequest, context: Any
    ) -> people_pb2.CommentOnIncidentResponse:
        """Notes what a person says. Raises Invalid for nothing, or too much."""
        actor, asked = access.caller(context), notes.request(request.request_id)
        text = notes.text(request.text)
        about = await self._about(request.name)

        async def work(tx: Transaction) -> notes.Notes:
            await store.lock(tx, about.incident)
            earlier = await store.comment_of(tx, actor, asked)
            if earlier is not None:
                _same((earlier.incident, earlier.text), (about.incident, text))
            else:
                made = Comment(names.new_id(tx.now), about.incident, text, actor, asked, tx.now)
                await store.comment(tx, made)
                tx.record(wire.commented(made, about))
            return await store.get(tx, about.incident)

        found = await self.ctx.database.transaction(work)
        return people_pb2.CommentOnIncidentResponse(notes=wire.notes(found))

    async def _about(self, name: str) -> Event:
        """The newest fact of an incident: it says which plugin and merchant it is about. Raises NotFound."""
        incident = names.parse("incidents", name)
        async with self.ctx.database.reading() as tx:
            rows = await timeline.newest(tx, Wanted(incident=incident), before=ANY, limit=1)
        if not rows:
            raise NotFound(f"there is no incident {incident} on the timeline", reason="INCIDENT_UNKNOWN", field="name")
        return Event.FromString(rows[0].payload)


def _same(before: tuple[str, str], now: tuple[str, str]) -> None:
    if before != now:
        raise Refused(
            "this request_id belongs to another request; use a fresh one",
            reason="REQUEST_ID_REUSED",
            field="request_id",
        )
