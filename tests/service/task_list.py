"""A queue service over a list, for tests of the worker: real leases, tokens and refusals, no database."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from libs.common import rpc
from libs.common.errors import NotFound, Stale
from prunella.v1 import queue_pb2, queue_pb2_grpc

PENDING, PROCESSING = queue_pb2.TASK_STATE_PENDING, queue_pb2.TASK_STATE_PROCESSING
COMPLETED, FAILED = queue_pb2.TASK_STATE_COMPLETED, queue_pb2.TASK_STATE_FAILED


@dataclass
class Entry:
    """One task, its strategy, and who has it until when."""

    leased: queue_pb2.LeasedTask
    tools: set[str]
    until: float = 0.0
    endings: list[queue_pb2.CompleteTaskRequest] = field(default_factory=list)
    refused: list[queue_pb2.CompleteTaskRequest] = field(default_factory=list)

    @property
    def state(self) -> int:
        return self.leased.task.state


class TaskList(queue_pb2_grpc.QueueServiceServicer):
    """Hands out what is in the list; `lapse_after` shortens leases behind the worker's back (seconds)."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.claims: list[queue_pb2.ClaimTasksRequest] = []
        self.extended = 0
        self.lapse_after: float | None = None

    def add(self, strategy: queue_pb2.Strategy, **report: Any) -> Entry:
        number = len(self.entries) + 1
        fields = {
            "plugin": "p-1",
            "label": "shop-1",
            "merchant": "acme",
            "package": "relay",
            "release": "1.2.3",
        } | report
        group = queue_pb2.ErrorReportGroup(name=f"errorReports/r{number}", **fields)
        task = queue_pb2.Task(name=f"tasks/t{number}", report=group.name, state=PENDING, strategy=strategy.name)
        tools = {step.tool for step in [*strategy.steps, strategy.check.step] if step.tool}
        entry = Entry(queue_pb2.LeasedTask(task=task, report=group, strategy=strategy), tools)
        self.entries.append(entry)
        return entry

    async def ClaimTasks(self, request: queue_pb2.ClaimTasksRequest, context: Any) -> queue_pb2.ClaimTasksResponse:
        self.claims.append(request)
        deadline = time.monotonic() + request.wait_duration.ToMilliseconds() / 1000
        while True:
            taken = [entry for entry in self.entries if self._free(entry, set(request.tools))][: request.max_tasks or 1]
            for entry in taken:
                entry.leased.token += 1
                entry.leased.task.state = PROCESSING
                entry.leased.task.worker = request.worker
                self._hold(entry, request.lease_duration.ToMilliseconds() / 1000)
            if taken or time.monotonic() >= deadline:
                return queue_pb2.ClaimTasksResponse(tasks=[entry.leased for entry in taken])
            await asyncio.sleep(0.02)

    async def ExtendTask(self, request: queue_pb2.ExtendTaskRequest, context: Any) -> queue_pb2.ExtendTaskResponse:
        entry = self._held(request.name, request.token)
        self.extended += 1
        self._hold(entry, request.lease_duration.ToMilliseconds() / 1000)
        return queue_pb2.ExtendTaskResponse()

    async def CompleteTask(
        self, request: queue_pb2.CompleteTaskRequest, context: Any
    ) -> queue_pb2.CompleteTaskResponse:
        try:
            entry = self._held(request.name, request.token)
        except Stale:
            self._find(request.name).refused.append(request)
            raise
        entry.endings.append(request)
        entry.leased.task.state = COMPLETED if request.success else FAILED
        return queue_pb2.CompleteTaskResponse(task=entry.leased.task)

    def _hold(self, entry: Entry, seconds: float) -> None:
        entry.until = time.monotonic() + (seconds if self.lapse_after is None else self.lapse_after)

    def _free(self, entry: Entry, tools: set[str]) -> bool:
        lapsed = entry.state == PROCESSING and time.monotonic() > entry.until
        return (entry.state == PENDING or lapsed) and entry.tools <= tools

    def _find(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.leased.task.name == name:
                return entry
        raise NotFound(f"no task {name}", reason="TASK_UNKNOWN")

    def _held(self, name: str, token: int) -> Entry:
        entry = self._find(name)
        if entry.state != PROCESSING or entry.leased.token != token or time.monotonic() > entry.until:
            raise Stale(f"the lease of {name} under {token} is over", reason="LEASE_LOST")
        return entry


async def serve(tasks: TaskList, key: str) -> rpc.Server:
    """The list behind a real server; stop it with `stop`."""

    async def ready() -> None:
        """A list is always ready."""

    servicer = (queue_pb2_grpc.add_QueueServiceServicer_to_server, tasks, "prunella.v1.QueueService")
    server = rpc.Server("queue", "127.0.0.1:0", [servicer], key=key, deep_check=ready)
    await server.start()
    return server


def step(tool: str, arguments: str = "", *, write: bool = False) -> queue_pb2.StrategyStep:
    """One step."""
    return queue_pb2.StrategyStep(tool=tool, arguments=arguments, write=write, purpose=f"call {tool}")


def strategy(
    *steps: queue_pb2.StrategyStep, check: tuple[str, str, str, str] | None = None, approved: bool = False
) -> queue_pb2.Strategy:
    """A strategy of these steps; `check` is tool, path, comparison, value."""
    made = queue_pb2.Strategy(name="strategies/s", steps=steps, approved=approved)
    if check:
        made.check.step.tool, made.check.path, made.check.comparison, made.check.value = check
    return made
