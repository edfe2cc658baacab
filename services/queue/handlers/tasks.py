"""Tasks for people: looked at, tried again, cancelled, taken back, cleaned up; and how much work there is."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc

from libs.common import access, paging
from libs.common.database import Transaction
from libs.common.errors import known
from libs.common.names import new_id
from prunella.v1 import queue_pb2 as pb
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.operations.commands import cancel_task, retry_task
from services.queue.operations.completion import record_recovered
from services.queue.stats import queue_stats
from services.queue.store import history, state_counts, tasks
from services.queue.wire import facts
from services.queue.wire import reports as report_wire
from services.queue.wire import tasks as wire

Context = grpc.aio.ServicerContext[Any, Any]

MOST_RESET = 1000
CHUNK = 5000


class TaskHandlers:
    """The part of `QueueService` about tasks."""

    ctx: ServiceContext

    async def GetTask(self, request: pb.GetTaskRequest, _context: Context) -> pb.GetTaskResponse:
        """One task with its history. Raises Invalid for a bad name, NotFound for an unknown one."""
        task = wire.id_of("tasks", request.name)
        async with self.ctx.database.reading() as tx:
            row = known(await tasks.get(tx, task), "task", task)
            entries = [entry for entry in await history.of_report(tx, str(row.report)) if entry.task == row.id]
            resource = await self._resource(tx, row)
        return pb.GetTaskResponse(task=resource, history=[report_wire.entry(entry) for entry in entries])

    async def ListTasks(self, request: pb.ListTasksRequest, _context: Context) -> pb.ListTasksResponse:
        """Tasks, newest first. Raises Invalid for bad paging or names."""
        filters = wire.filters(request)
        page = paging.page(request, {"list": "tasks", **vars(filters)}, UUID)
        async with self.ctx.database.reading() as tx:
            rows, token = page.cut(await tasks.page(tx, filters, page), lambda row: [row.id])
            found = [await self._resource(tx, row) for row in rows]
        return pb.ListTasksResponse(tasks=found, next_page_token=token)

    async def RetryTask(self, request: pb.RetryTaskRequest, _context: Context) -> pb.RetryTaskResponse:
        """Gives a task another try."""
        task = wire.id_of("tasks", request.name)
        priority = wire.priority(request.priority)
        reason = wire.reason(request.reason, "a person asked for another try")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.RetryTaskResponse:
            await retry_task(tx, self.ctx, task, priority=priority, actor=actor, reason=reason)
            return pb.RetryTaskResponse(task=await self._resource(tx, await tasks.get(tx, task)))

        return await self.ctx.requests.once(request, pb.RetryTaskResponse, work)

    async def CancelTask(self, request: pb.CancelTaskRequest, _context: Context) -> pb.CancelTaskResponse:
        """Takes a task out of the queue."""
        task = wire.id_of("tasks", request.name)
        reason = wire.reason(request.reason, "a person took it out")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.CancelTaskResponse:
            await cancel_task(tx, task, actor=actor, reason=reason)
            return pb.CancelTaskResponse(task=await self._resource(tx, await tasks.get(tx, task)))

        return await self.ctx.requests.once(request, pb.CancelTaskResponse, work)

    async def GetQueueStats(self, _request: pb.GetQueueStatsRequest, _context: Context) -> pb.GetQueueStatsResponse:
        """How much work there is, and how it went."""
        async with self.ctx.database.reading() as tx:
            counted = await state_counts.totals(tx)
            status = await state_counts.task_states(tx)
        return wire.stats(queue_stats(counted), status, self.ctx.clock.now())

    async def ResetStuckTasks(
        self, request: pb.ResetStuckTasksRequest, _context: Context
    ) -> pb.ResetStuckTasksResponse:
        """Takes back up to 1,000 tasks that were claimed too long ago; they wait again."""
        stuck = wire.stuck(request.stuck_duration)
        reason = wire.reason(request.reason, "stuck: taken back by a person")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.ResetStuckTasksResponse:
            rows = await tasks.reset(tx, stuck, actor=actor, reason=reason, most=leases.MAX_CRASHES, limit=MOST_RESET)
            await record_recovered(tx, self.ctx, rows, actor=actor, reason=reason, outcome="RESET")
            return pb.ResetStuckTasksResponse(tasks=len(rows))

        return await self.ctx.requests.once(request, pb.ResetStuckTasksResponse, work)

    async def CleanUpTasks(self, request: pb.CleanUpTasksRequest, _context: Context) -> pb.CleanUpTasksResponse:
        """Deletes old ended tasks, some thousands to a transaction; reports and their history stay."""
        age = wire.days(request.days)
        reason = wire.reason(request.reason, f"a person wanted those of more than {request.days} days gone")
        actor = access.caller()
        answered = await self.ctx.requests.earlier(request, pb.CleanUpTasksResponse)
        if answered is not None:
            return answered
        deleted = 0

        async def chunk(tx: Transaction) -> int:
            before = tx.now - age
            gone = await tasks.clean_up(tx, before, new_id(before), CHUNK)
            if gone:
                tx.record(facts.tasks_cleaned_up(gone, request.days, actor=actor, reason=reason))
            return gone

        while gone := await self.ctx.database.transaction(chunk):
            deleted += gone

        async def work(_tx: Transaction) -> pb.CleanUpTasksResponse:
            return pb.CleanUpTasksResponse(tasks=deleted)

        return await self.ctx.requests.once(request, pb.CleanUpTasksResponse, work)

    async def _resource(self, tx: Transaction, row: Any) -> pb.Task:
        toolsets = self.ctx.toolsets
        if row.toolset not in toolsets.known:
            await toolsets.refresh(tx, now=True)
        return wire.resource(row, toolsets.tools_of(row.toolset))
