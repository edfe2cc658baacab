"""Someone asked: the story of an incident."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from libs.common import names, paging
from libs.common.errors import Invalid, NotFound
from prunella.v1 import stories_pb2 as pb
from services.ops import stories
from services.ops.context import ServiceContext
from services.ops.store import stories as store
from services.ops.wire import filters
from services.ops.wire import stories as wire

LAST = datetime.max.replace(tzinfo=UTC)
# A page of stories is read from the facts of each, so it is smaller than other pages.
LARGEST_PAGE = 100
LINES = 150  # facts of one story that a list reads


class StoryHandlers:
    """The stories' part of OpsService."""

    ctx: ServiceContext

    async def ListStories(self, request: pb.ListStoriesRequest, _context: Any) -> pb.ListStoriesResponse:
        """Stories, newest first."""
        wanted = _filter(request)
        page = paging.page(request, asdict(wanted), datetime, str, largest=LARGEST_PAGE)
        before, under = page.after or [LAST, ""]
        async with self.ctx.database.reading() as reading:
            rows = await store.page(reading, wanted, before=before, under=under, limit=page.limit)
            rows, token = page.cut(rows, lambda row: [row[1], row[0]])
            facts = await store.facts(reading, [incident for incident, _ in rows], LINES)
        made = [stories.story(incident, wire.facts(facts[incident]), LINES) for incident, _ in rows]
        return pb.ListStoriesResponse(stories=[wire.story(one, steps=False) for one in made], next_page_token=token)

    async def GetStory(self, request: pb.GetStoryRequest, _context: Any) -> pb.GetStoryResponse:
        """One story with its steps."""
        incident = names.parse("incidents", request.name)
        async with self.ctx.database.reading() as reading:
            facts = (await store.facts(reading, [incident], stories.LONGEST))[incident]
        if not facts:
            raise NotFound(
                f"no fact names {request.name}; see: prunella stories list", reason="STORY_NOT_FOUND", field="name"
            )
        return pb.GetStoryResponse(story=wire.story(stories.story(incident, wire.facts(facts)), steps=True))


def _filter(request: pb.ListStoriesRequest) -> store.StoryFilter:
    since, until = filters.time(request, "since_time"), filters.time(request, "until_time")
    if since and until and until <= since:
        raise Invalid("until_time must be after since_time", reason="WINDOW_ENDS_BEFORE_IT_STARTS", field="until_time")
    return store.StoryFilter(
        plugin=filters.id_in("plugins", request.plugin, "plugin"),
        merchant=filters.merchant(request.merchant),
        state=filters.incident_state(request.state),
        severity=filters.severity(request.severity),
        since=since,
        until=until,
    )
