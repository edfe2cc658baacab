"""Someone asked: the figures of a window."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from typing import Any

from prunella.v1 import kpis_pb2 as pb
from services.ops import kpis
from services.ops.context import ServiceContext
from services.ops.handlers.sibling_cache import SiblingCache
from services.ops.store import kpis as store
from services.ops.wire import filters
from services.ops.wire import kpis as wire
from services.ops.wire.overview import by_severity, fleet


class KpiHandlers:
    """The figures' part of OpsService."""

    ctx: ServiceContext
    siblings: SiblingCache

    async def GetKpis(self, request: pb.GetKpisRequest, _context: Any) -> pb.GetKpisResponse:
        """The figures of a window, each beside its target."""
        merchant, now = filters.merchant(request.merchant), self.ctx.clock.now()
        window = kpis.window(filters.time(request, "start_time"), filters.time(request, "end_time"), now)
        found = await self.siblings.fleet(merchant)
        async with self.ctx.database.reading() as reading:
            figures = store.KpiQueries(reading, window, merchant)
            answer = await _figures(figures)
            answer.queue.CopyFrom(wire.queue(await figures.reports(), None if merchant else await figures.tasks()))
            answer.uptime.extend(wire.uptime(await figures.uptime(), window.seconds))
        answer.start_time.FromDatetime(window.start)
        answer.end_time.FromDatetime(window.end)
        answer.merchant, answer.point_seconds = merchant, int(window.step.total_seconds())
        if summary := fleet(found, now):
            answer.fleet.CopyFrom(summary)
        return answer


async def _figures(figures: store.KpiQueries) -> pb.GetKpisResponse:
    outcomes = await figures.outcomes()
    severities, types = await figures.opened()
    reopened, reopenings = await figures.reopened()
    resolved = await figures.resolved()
    manual = await figures.interventions()
    bins = await figures.calibration()
    return pb.GetKpisResponse(
        success=wire.ratio(kpis.success(outcomes)),
        rollback=wire.ratio(kpis.rollback(outcomes)),
        attempts=outcomes,
        time_to_detect=wire.durations(await figures.detected()),
        time_to_repair=wire.durations(await figures.repaired()),
        incidents_by_severity=by_severity(severities),
        incidents_by_type={name or "unknown": count for name, count in types.items()},
        incidents_reopened={name or "unknown": count for name, count in reopened.items()},
        reopenings=reopenings,
        incidents_ended={state: count for state, (count, _) in resolved.items()},
        automatic_resolution=wire.ratio(store.automatic(resolved)),
        manual_interventions=sum(manual.values()),
        manual_by_fact=manual,
        calibration=wire.calibration(bins),
        calibration_error=kpis.calibration_error(bins),
        points=wire.points(await figures.points()),
    )
