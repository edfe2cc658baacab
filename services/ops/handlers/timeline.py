"""Someone asked: the timeline and a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from libs.common import paging
from libs.common.errors import Invalid, NotFound
from prunella.v1 import ops_pb2, ops_pb2_grpc
from services.ops import traces, wire
from services.ops.context import ServiceContext
from services.ops.store import spans, timeline
from services.ops.wire import filters

BATCH = 200
POLL = 0.5  # seconds between looks for what another replica placed


class TimelineHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The timeline's part of OpsService."""

    ctx: ServiceContext

    async def ListTimeline(  # noqa: N802 - the method's name on the wire
        self, request: ops_pb2.ListTimelineRequest, _context: Any
    ) -> ops_pb2.ListTimelineResponse:
        """Facts, newest first."""
        wanted = filters.timeline(request.plugin, request.incident, request.facts)
        page = paging.page(request, asdict(wanted), int)
        (before,) = page.after or [timeline.END]
        async with self.ctx.database.reading() as reading:
            rows = await timeline.newest(reading, wanted, before=before, limit=page.limit)
        rows, token = page.cut(rows, lambda row: [row.position])
        return ops_pb2.ListTimelineResponse(entries=[wire.entry(row) for row in rows], next_page_token=token)

    async def WatchTimeline(  # noqa: N802
        self, request: ops_pb2.WatchTimelineRequest, _context: Any
    ) -> AsyncIterator[ops_pb2.WatchTimelineResponse]:
        """Facts as they get their positions, without a gap after `after_position`."""
        wanted = filters.timeline(request.plugin, request.incident, request.facts)
        if request.after_position < 0:
            raise Invalid(
                f"after_position must not be negative, it was {request.after_position}",
                reason="BAD_POSITION",
                field="after_position",
            )
        async with self.ctx.database.reading() as reading:
            after = request.after_position or await timeline.last(reading)
        while True:
            async with self.ctx.database.reading() as reading:
                # `last` is read first: what is placed in between comes with the next look instead of being skipped.
                last = await timeline.last(reading)
                rows = await timeline.following(reading, wanted, after=after, last=last, limit=BATCH)
            for row in rows:
                yield ops_pb2.WatchTimelineResponse(entry=wire.entry(row))
            if len(rows) == BATCH:
                after = rows[-1].position
                continue
            after = max(after, last)
            await self.ctx.placed.wait(POLL)

    async def GetTrace(  # noqa: N802
        self, request: ops_pb2.GetTraceRequest, _context: Any
    ) -> ops_pb2.GetTraceResponse:
        """The spans of a trace or of an incident's story, with what is missing."""
        trace, incident = wire.trace_name(request.name)
        async with self.ctx.database.reading() as reading:
            story = [trace] if trace else await timeline.traces(reading, incident)
            found = await spans.story(reading, story) if story else []
        if not found:
            raise NotFound(
                f"no span of {request.name} is kept (spans stay 72 hours)", reason="TRACE_NOT_FOUND", field="name"
            )
        missing = traces.missing(found)
        return ops_pb2.GetTraceResponse(
            trace_id=story[0],
            spans=[wire.span(span) for span in traces.ordered(found)],
            complete=not missing,
            missing=missing,
        )
