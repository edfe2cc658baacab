"""Claims and what follows: a worker leases tasks, extends leases, completes tasks.

Rule: a claim waits for its first task without holding anything: it looks, sleeps until somebody in this process signals
that work came or a quarter of a second has passed, and looks again; it ends at once when the server drains. Everything
a worker sends is fenced by the token of its lease.
"""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import access
from libs.common.database import Transaction
from libs.common.errors import Invalid, Problem
from libs.common.telemetry import current_telemetry, histogram, use_traceparent
from prunella.v1 import queue_pb2 as pb
from services.queue.context import TASKS, ServiceContext
from services.queue.operations.completion import MOST_SPANS, complete_tasks, lease_lapsed, stale_token, task_unknown
from services.queue.store import history, reports, strategies, task_leases, tasks
from services.queue.store.task_leases import Completion
from services.queue.wire import facts
from services.queue.wire import reports as report_wire
from services.queue.wire import strategies as strategy_wire
from services.queue.wire import tasks as wire

Context = grpc.aio.ServicerContext[Any, Any]

POLL_SECONDS = 0.25
MOST_DUE = 1000
MOST_HISTORY = 20

_claims = histogram("queue_claim_seconds", "Time one claim took", ("found",))
_waits = histogram(
    "queue_wait_seconds",
    "How long the most urgent task of a claim had waited since it was due",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200),
)


@dataclass(frozen=True)
class ClaimQuery:
    """What a worker asks for, checked."""

    worker: str
    count: int
    lease: timedelta
    tools: tuple[str, ...]
    any_tools: bool
    omit_details: bool
    actor: str


class ClaimHandlers:
    """The part of `QueueService` for workers."""

    ctx: ServiceContext

    async def ClaimTasks(self, request: pb.ClaimTasksRequest, _context: Context) -> pb.ClaimTasksResponse:
        """Leases tasks, waiting for the first. Raises Invalid naming the field."""
        query = ClaimQuery(
            worker=wire.worker(request.worker),
            count=wire.max_tasks(request.max_tasks),
            lease=wire.lease(request.lease_duration, request.HasField("lease_duration")),
            tools=wire.tools(request.tools),
            any_tools=request.any_tools,
            omit_details=request.omit_details,
            actor=access.caller(),
        )
        until = time.monotonic() + wire.wait(request.wait_duration)
        while True:
            answer = await self._poll(query)
            left = until - time.monotonic()
            if answer.tasks or left <= 0 or self.ctx.draining():
                return answer
            await self.ctx.database.wait(TASKS, min(POLL_SECONDS, left))

    async def ExtendTask(self, request: pb.ExtendTaskRequest, _context: Context) -> pb.ExtendTaskResponse:
        """Prolongs a lease. Raises NotFound for an unknown task, Stale when the lease is not held any more."""
        task = wire.id_of("tasks", request.name)
        lease = wire.lease(request.lease_duration, request.HasField("lease_duration"))

        async def extend(tx: Transaction) -> datetime:
            found = await task_leases.extend(tx, task, request.token, tx.now + lease)
            if found is None:
                row = (await task_leases.tokens(tx, [task])).get(task)
                if row is None:
                    raise task_unknown(task)
                still = (row.token, row.state) == (request.token, "processing")
                raise lease_lapsed() if still else stale_token(row.state)
            return found

        answer = pb.ExtendTaskResponse()
        answer.lease_expire_time.FromDatetime(await self.ctx.database.transaction(extend))
        return answer

    async def CompleteTask(self, request: pb.CompleteTaskRequest, _context: Context) -> pb.CompleteTaskResponse:
        """Ends one try. Raises Invalid, NotFound, Stale for a stale token, Refused when it ended otherwise."""
        one = wire.completion(request)
        actor = access.caller()

        async def complete(tx: Transaction) -> Any:
            refused = await complete_tasks(tx, self.ctx, [one], actor)
            for problem in refused.values():
                raise problem
            row = await tasks.get(tx, one.task)
            await self.ctx.toolsets.refresh(tx)
            return row

        row = await self.ctx.database.transaction(complete)
        return pb.CompleteTaskResponse(task=wire.resource(row, self.ctx.toolsets.tools_of(row.toolset)))

    async def CompleteTasks(self, request: pb.CompleteTasksRequest, _context: Context) -> pb.CompleteTasksResponse:
        """Ends many tries, each for itself. Raises Invalid when there are too many."""
        if len(request.completions) > wire.MOST_TASKS:
            raise Invalid(
                f"completions may hold {wire.MOST_TASKS}; send the rest in another request",
                reason="TOO_MANY_COMPLETIONS",
                field="completions",
            )
        answer = pb.CompleteTasksResponse()
        # An end is one lease of a task; told more often it is one all the same. Old leases stand for themselves.
        good: dict[tuple[str, int], tuple[list[int], Completion]] = {}
        for index, completion in enumerate(request.completions):
            try:
                one = wire.completion(completion)
                places, known = good.get((one.task, one.token), ([], one))
                _check_duplicate(known, one)
            except Problem as problem:
                _refuse(answer, index, problem)
                continue
            good[one.task, one.token] = ([*places, index], known)
        actor = access.caller()
        completions = [good[lease][1] for lease in sorted(good)]
        refused = await self.ctx.database.transaction(lambda tx: complete_tasks(tx, self.ctx, completions, actor))
        for lease, found in refused.items():
            for index in good[lease][0]:
                _refuse(answer, index, found)
        answer.refusals.sort(key=lambda refusal: refusal.index)
        answer.completed = len(request.completions) - len(answer.refusals)
        return answer

    async def _poll(self, query: ClaimQuery) -> pb.ClaimTasksResponse:
        began = time.perf_counter()
        answer = await self.ctx.database.transaction(lambda tx: self._claim(tx, query))
        _claims.labels("some" if answer.tasks else "none").observe(time.perf_counter() - began)
        return answer

    async def _claim(self, tx: Transaction, query: ClaimQuery) -> pb.ClaimTasksResponse:
        toolsets = self.ctx.toolsets
        await toolsets.refresh(tx)
        until = tx.now + query.lease
        rows = await self._rows(tx, query, until)
        if not rows:
            # Nothing waits as far as we know: look whether a retry is due, or a tool set is new.
            await toolsets.refresh(tx, now=True)
            await tasks.due(tx, MOST_DUE)
            rows = await self._rows(tx, query, until)
        answer = pb.ClaimTasksResponse()
        if not rows:
            return answer
        until_time = Timestamp()
        until_time.FromDatetime(until)
        for row in rows:
            wire.add_leased(answer, row, toolsets.tools_of(row.toolset), query.worker, until_time)
        if not query.omit_details:
            await self._complement(tx, answer, rows)
        event = facts.tasks_claimed(query.worker, rows, until, actor=query.actor)
        with use_traceparent(rows[0].traceparent if len(rows) == 1 else ""):
            tx.record(event)
        tx.after_commit(lambda: _measure(tx.now, rows, query.worker))
        return answer

    async def _rows(self, tx: Transaction, query: ClaimQuery, until: datetime) -> Sequence[Any]:
        claimable = self.ctx.toolsets.executable(query.tools, any_tools=query.any_tools)
        if not claimable:
            return ()
        await self.ctx.toolsets.record_claim(tx, claimable, self.ctx.settings.stranded / 4)
        return await task_leases.claim(tx, claimable, worker=query.worker, until=until, limit=query.count)

    async def _complement(self, tx: Transaction, answer: pb.ClaimTasksResponse, rows: Sequence[Any]) -> None:
        ids = [str(row.report) for row in rows]
        found = await reports.get_many(tx, ids)
        earlier = await history.of_reports(tx, ids, MOST_HISTORY)
        stored = await strategies.all_statuses(tx)
        for leased, row in zip(answer.tasks, rows, strict=True):
            leased.report.CopyFrom(report_wire.resource(found[str(row.report)]))
            strategy = self.ctx.catalogue.strategy_set.named(row.strategy)
            if strategy:
                leased.strategy.CopyFrom(strategy_wire.resource(strategy, stored.get(row.strategy)))
            leased.history.extend(report_wire.entry(entry) for entry in earlier.get(str(row.report), ()))


def _check_duplicate(earlier: Completion, one: Completion) -> None:
    if earlier.success != one.success:
        raise Invalid(
            "the task is in this request already, with another end", reason="TASK_GIVEN_TWICE", field="completions"
        )


def _refuse(answer: pb.CompleteTasksResponse, index: int, problem: Problem) -> None:
    answer.refusals.add(index=index, reason=problem.reason, message=problem.message)


def _measure(now: datetime, rows: Sequence[Any], worker: str) -> None:
    _waits.observe(max(0.0, (now - rows[0].run_time).total_seconds()))
    for row in rows[:MOST_SPANS]:
        if row.traceparent:
            attributes = {"task": str(row.id), "worker": worker, "token": row.token}
            current_telemetry().span_at("task claimed", now, now, parent=row.traceparent, attributes=attributes)
