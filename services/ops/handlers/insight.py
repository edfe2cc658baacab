"""Someone asked: the plane at a glance, the figures of a window, the story of an incident."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from libs.common import names, paging
from libs.common.errors import Invalid, NotFound
from prunella.v1 import insight_pb2 as pb
from services.ops import kpis, overview, stories
from services.ops.context import ServiceContext
from services.ops.handlers.questions import Questions
from services.ops.store import kpis as kpi_rows
from services.ops.store import overview as rows
from services.ops.store import stories as story_rows
from services.ops.wire import insight as wire
from services.ops.wire import wanted

LAST = datetime.max.replace(tzinfo=UTC)
# A page of stories is read from the facts of each, so it is smaller than other pages.
LARGEST_PAGE = 100
LINES = 150  # facts of one story that a list reads


class InsightHandlers:
    """The part of OpsService that answers at a glance."""

    ctx: ServiceContext
    questions: Questions

    async def GetOverview(self, request: pb.GetOverviewRequest, _context: Any) -> pb.GetOverviewResponse:
        """What is wrong, what was done about it, what people must do."""
        merchant = wire.merchant(request.merchant)
        if not 0 <= request.limit <= overview.MOST:
            raise Invalid(
                f"limit must be between 0 and {overview.MOST}, it was {request.limit}",
                reason="BAD_LIMIT",
                field="limit",
            )
        limit = request.limit or overview.USUAL
        fleet, queue = await asyncio.gather(self.questions.fleet(merchant), self._queue(merchant))
        async with self.ctx.database.reading() as reading:
            now = reading.now
            answer = pb.GetOverviewResponse(time=wire.stamp(now), queue=wire.queue(queue), fleet=wire.fleet(fleet, now))
            answer.wrong.extend(wire.wrong(row) for row in await rows.wrong(reading, merchant, limit))
            answer.wrong_by_severity.update(wire.by_severity(await rows.counts(reading, merchant)))
            since = now - overview.LATELY
            done, tried = await rows.done(reading, merchant, since)
            answer.done.CopyFrom(
                pb.DoneLately(
                    since_time=wire.stamp(since),
                    opened=done.opened,
                    healed=done.healed,
                    closed=done.closed,
                    escalated=done.escalated,
                    attempts=tried,
                )
            )
            needed = [wire.need(row) for row in await rows.needs(reading, merchant, now, limit)]
            answer.needs_by_kind.update(await rows.need_counts(reading, merchant, now))
            if not merchant:
                letters = await rows.dead(reading)
                needed += [wire.parked(row) for row in letters]
                if letters:
                    answer.needs_by_kind["dead_letter"] = sum(row.count for row in letters)
            answer.services.extend(wire.service(row, now) for row in await rows.health(reading))
        answer.needs.extend(sorted(needed, key=lambda need: -need.severity)[:limit])
        return answer

    async def GetKpis(self, request: pb.GetKpisRequest, _context: Any) -> pb.GetKpisResponse:
        """The figures of a window, each beside its target."""
        merchant = wire.merchant(request.merchant)
        now = self.ctx.clock.now()
        window = kpis.window(wire.moment(request, "start_time"), wire.moment(request, "end_time"), now)
        fleet = await self.questions.fleet(merchant)
        async with self.ctx.database.reading() as reading:
            figures = kpi_rows.Figures(reading, window, merchant)
            outcomes = await figures.outcomes()
            severities, types = await figures.broken()
            resolved = await figures.resolved()
            ended, alone = kpi_rows.merged(resolved)
            manual = await figures.interventions()
            confidence = await figures.confidence()
            return pb.GetKpisResponse(
                start_time=wire.stamp(window.start),
                end_time=wire.stamp(window.end),
                merchant=merchant,
                success=wire.ratio(kpis.success(outcomes)),
                rollback=wire.ratio(kpis.rollback(outcomes)),
                attempts=outcomes,
                time_to_detect=wire.durations(await figures.detected()),
                time_to_repair=wire.durations(await figures.repaired()),
                incidents_by_severity=wire.by_severity(severities),
                incidents_by_type={name or "unknown": count for name, count in types.items()},
                incidents_ended={state: count for state, (count, _) in resolved.items()},
                automatic_resolution=wire.ratio(kpis.Share(alone, ended)),
                manual_interventions=sum(manual.values()),
                manual_by_fact=manual,
                confidence=wire.confidence(confidence),
                calibration_error=kpis.miscalibration(confidence),
                queue=wire.queue_figures(await figures.reports(), None if merchant else await figures.tasks()),
                fleet=wire.fleet(fleet, now),
                uptime=wire.uptime(await figures.uptime(), window.seconds),
                points=wire.points(await figures.points()),
                point_seconds=int(window.step.total_seconds()),
            )

    async def ListStories(self, request: pb.ListStoriesRequest, _context: Any) -> pb.ListStoriesResponse:
        """Stories, newest first."""
        since, until = wire.moment(request, "since_time"), wire.moment(request, "until_time")
        if since and until and until <= since:
            raise Invalid(
                "until_time must be after since_time", reason="WINDOW_ENDS_BEFORE_IT_STARTS", field="until_time"
            )
        asked = story_rows.Asked(
            plugin=wanted(request.plugin, "", ()).plugin,
            merchant=wire.merchant(request.merchant),
            state=wire.state(request.state),
            severity=wire.severity(request.severity),
            since=since,
            until=until,
        )
        query = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
        size = min(paging.page_size(request.page_size), LARGEST_PAGE)
        before, under = paging.open_token(request.page_token, query) or [LAST, ""]
        async with self.ctx.database.reading() as reading:
            found = await story_rows.page(reading, asked, before=before, under=str(under), limit=size + 1)
            facts = await story_rows.facts(reading, [incident for incident, _ in found[:size]], LINES)
        token = paging.token(query, [found[size - 1][1], found[size - 1][0]]) if len(found) > size else ""
        told = [stories.tell(incident, wire.moments(facts[incident]), LINES) for incident, _ in found[:size]]
        return pb.ListStoriesResponse(stories=[wire.story(one, steps=False) for one in told], next_page_token=token)

    async def GetStory(self, request: pb.GetStoryRequest, _context: Any) -> pb.GetStoryResponse:
        """One story with its steps."""
        incident = names.parse("incidents", request.name)
        async with self.ctx.database.reading() as reading:
            facts = (await story_rows.facts(reading, [incident], stories.LONGEST))[incident]
        if not facts:
            raise NotFound(
                f"no fact names {request.name}; see: prunella stories list", reason="STORY_NOT_FOUND", field="name"
            )
        return pb.GetStoryResponse(story=wire.story(stories.tell(incident, wire.moments(facts)), steps=True))

    async def _queue(self, merchant: str) -> Any:
        """The queue belongs to everybody; of one merchant there is no data."""
        return None if merchant else await self.questions.queue()
