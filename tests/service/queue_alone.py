"""queue alone on real PostgreSQL and NATS, with time in the test's hand: the test is reporter, worker and person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.local.testing import BackingServices, Plane, until
from libs.common.clock import ManualClock
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from prunella.v1.agent_pb2 import ErrorReport
from prunella.v1.queue_pb2_grpc import QueueServiceStub

# Matches a strategy that only reads, so that a task is made without an approval.
NETWORK = "connect ECONNREFUSED 10.0.0.7:443"
STRATEGY = "network_reachable"
UNHEARD = "the moon is in the wrong house"
COUNT = {
    "tasks": "SELECT state, count(*) AS number FROM queue.tasks GROUP BY state",
    "reports": "SELECT state, count(*) AS number FROM queue.reports GROUP BY state",
}


@dataclass
class QueueAlone:
    """The service, its clock, and callers of it."""

    plane: Plane
    clock: ManualClock

    def __post_init__(self) -> None:
        self.person: Any = QueueServiceStub(self.plane.channel("queue"))
        self.worker: Any = QueueServiceStub(self.plane.channel("queue", "worker"))
        self.program: Any = QueueServiceStub(self.plane.channel("queue", "mcp"))

    def error(self, message: str = NETWORK, *, plugin: str = "shop-7", **fields: Any) -> pb.ReportedError:
        """An error of a plugin; occurrences under a counter of its own unless `id` says otherwise."""
        told = pb.ReportedError(plugin=plugin, merchant="acme", package="shop", release="1.2.0")
        own = {"id": new_id(), "type": "NetworkError" if message == NETWORK else "OddError"}
        told.error.CopyFrom(ErrorReport(message=message, **(own | fields)))
        return told

    async def report(self, *errors: pb.ReportedError, request_id: str = "") -> list[Any]:
        """Reports errors; what became of each."""
        request = pb.ReportErrorsRequest(errors=errors, request_id=request_id)
        return list((await self.person.ReportErrors(request, timeout=10)).outcomes)

    async def group(self, name: str) -> pb.ErrorReportGroup:
        """A report as it is now."""
        answer = await self.person.GetErrorReport(pb.GetErrorReportRequest(name=name), timeout=5)
        return answer.report  # type: ignore[no-any-return]

    async def history(self, name: str) -> list[str]:
        """The outcomes in a report's history."""
        answer = await self.person.GetErrorReport(pb.GetErrorReportRequest(name=name), timeout=5)
        return [entry.outcome for entry in answer.history]

    async def comes_to(self, name: str, state: str) -> pb.ErrorReportGroup:
        """Waits until a report is in a state."""
        wanted = pb.ReportState.Value(f"REPORT_STATE_{state.upper()}")

        async def look() -> pb.ErrorReportGroup | None:
            found = await self.group(name)
            return found if found.state == wanted else None

        return await until(look, what=f"{name} is {state}")  # type: ignore[no-any-return]

    async def claim(self, count: int = 1, *, wait: float = 5.0, worker: str = "w-1", **fields: Any) -> list[Any]:
        """Claims tasks, waiting for the first."""
        request = pb.ClaimTasksRequest(worker=worker, max_tasks=count, **({"any_tools": True} | fields))
        request.wait_duration.FromMilliseconds(round(wait * 1000))
        return list((await self.worker.ClaimTasks(request, timeout=40)).tasks)

    async def a_task(self, *, plugin: str = "shop-7", **fields: Any) -> pb.LeasedTask:
        """Reports an error and claims the task that is made of it."""
        await self.report(self.error(plugin=plugin, **fields))
        (leased,) = await self.claim()
        return leased  # type: ignore[no-any-return]

    async def complete(self, leased: Any, *, success: bool = True, **fields: Any) -> pb.Task:
        """Ends a try."""
        request = pb.CompleteTaskRequest(name=leased.task.name, token=leased.token, success=success, **fields)
        return (await self.worker.CompleteTask(request, timeout=5)).task  # type: ignore[no-any-return]

    async def task(self, name: str) -> pb.Task:
        """A task as it is now."""
        return (await self.person.GetTask(pb.GetTaskRequest(name=name), timeout=5)).task  # type: ignore[no-any-return]

    async def task_comes_to(self, name: str, state: str) -> pb.Task:
        """Waits until a task is in a state."""
        wanted = pb.TaskState.Value(f"TASK_STATE_{state.upper()}")

        async def look() -> pb.Task | None:
            found = await self.task(name)
            return found if found.state == wanted else None

        return await until(look, what=f"{name} is {state}")  # type: ignore[no-any-return]

    async def stats(self) -> pb.GetQueueStatsResponse:
        """The queue in figures."""
        return await self.person.GetQueueStats(pb.GetQueueStatsRequest(), timeout=5)  # type: ignore[no-any-return]

    async def true_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Tasks and reports by state, counted row by row."""
        found = []
        for statement in COUNT.values():
            rows = await self.plane.sql(statement)
            found.append({row.state: row.number for row in rows})
        return found[0], found[1]

    def after(self, seconds: float) -> datetime:
        """Moves time, and tells what it is."""
        self.clock.advance(seconds)
        return self.clock.now()


@asynccontextmanager
async def queue_alone(backing: BackingServices, **environ: str) -> AsyncIterator[QueueAlone]:
    """The service on a ground, stopped at the end."""
    clock = ManualClock()
    plane = Plane(backing, clock=clock, names=["queue"], environ=environ)
    try:
        await plane.start()
        yield QueueAlone(plane, clock)
    finally:
        await plane.stop()


def reason_of(error: BaseException) -> str:
    """The reason a problem names."""
    return str(getattr(error, "reason", ""))
