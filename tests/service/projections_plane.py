"""ops alone, handed facts past the bus: as often and in whatever order a test wants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deploy.local.testing import Plane
from prunella.v1 import kpis_pb2, overview_pb2, stories_pb2
from prunella.v1.events_pb2 import Event
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from services.ops.reactions import on_fact

PROJECTIONS = (
    "incidents", "attempts", "decisions", "attention", "retired_plugins", "interventions", "error_reports",
    "task_outcomes",
)  # fmt: skip


def ops(plane: Plane) -> Any:
    """The service's stub."""
    return OpsServiceStub(plane.channel("ops"))


async def hear(plane: Plane, events: Iterable[Event]) -> None:
    """Hands facts to the reaction, past the inbox."""
    ctx = plane.services["ops"].ctx

    async def once(work: Any) -> None:
        await ctx.database.transaction(work)

    for event in events:
        await on_fact(ctx, event, once)


async def rows(plane: Plane) -> dict[str, list[str]]:
    """Every projection as it stands."""
    found = {}
    for table in PROJECTIONS:
        told = await plane.sql(f"SELECT CAST(row_to_json(t) AS text) AS row FROM ops.{table} t ORDER BY 1")  # noqa: S608
        found[table] = [one.row for one in told]
    return found


async def forget(plane: Plane, *timeline: str) -> None:
    """Empties every projection, and tables of the timeline that are named."""
    assert plane._owner
    tables = ", ".join(f"ops.{table}" for table in (*PROJECTIONS, *timeline))
    await plane._owner.transaction(lambda tx: tx.run(f"TRUNCATE {tables}"))


async def overview(plane: Plane, **fields: Any) -> overview_pb2.GetOverviewResponse:
    """The plane at a glance."""
    answer: overview_pb2.GetOverviewResponse = await ops(plane).GetOverview(
        overview_pb2.GetOverviewRequest(**fields), timeout=10
    )
    return answer


async def kpis(plane: Plane, start: Any = None, end: Any = None, **fields: Any) -> kpis_pb2.GetKpisResponse:
    """The figures of a window."""
    request = kpis_pb2.GetKpisRequest(**fields)
    if start:
        request.start_time.FromDatetime(start)
    if end:
        request.end_time.FromDatetime(end)
    answer: kpis_pb2.GetKpisResponse = await ops(plane).GetKpis(request, timeout=10)
    return answer


async def stories(plane: Plane, **fields: Any) -> stories_pb2.ListStoriesResponse:
    """A page of stories."""
    answer: stories_pb2.ListStoriesResponse = await ops(plane).ListStories(
        stories_pb2.ListStoriesRequest(**fields), timeout=10
    )
    return answer
