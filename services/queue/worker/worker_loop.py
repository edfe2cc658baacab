"""The worker's loop: claim what its tools can do, work it off under the lease, end it under the token.

Rule: it claims no more than it works on at once. On SIGTERM it claims nothing more and lets running tasks end within
the grace; what still runs then is cut off without a word, and its lease lapses: the queue counts that apart from
errors and gives the task to another worker. A completion that the queue refuses is said and dropped: somebody else
has the task, and what they record is what counts.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import structlog

from libs.common import cancellation
from libs.common.errors import Problem, Unavailable
from libs.common.telemetry import counter, current_telemetry, gauge, use_traceparent
from prunella.v1 import queue_pb2
from services.queue.worker.config import Config
from services.queue.worker.execution import Execution, ExecutionResult
from services.queue.worker.lease import CALL_SECONDS, Lease, LeaseLost, duration
from services.queue.worker.tool_servers import ToolServers

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
NO_TOOLS_SECONDS = 0.5
RETRY_SECONDS = 0.5

_log = structlog.get_logger(__name__)
_outcomes = counter("worker_tasks_total", "Tasks this worker worked on, by how its try ended", ("outcome",))
_running = gauge("worker_running_tasks", "Tasks this worker works on now")


class Worker:
    """Works off tasks until stopped; a part of the worker's process."""

    name = "worker"

    def __init__(self, config: Config, servers: ToolServers, queue: Any) -> None:
        self._config = config
        self._servers = servers
        self._queue = queue
        self._loop: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to claim."""
        _log.info("worker started", worker=self._config.name, tools=self._servers.tools())
        self._loop = asyncio.create_task(self._claim_on(), name="claims")

    async def stop(self) -> None:
        """Claims nothing more, waits the grace for running tasks, cuts the rest off."""
        if self._loop is not None:
            await cancellation.cancel_and_wait([self._loop])
        if self._tasks:
            _log.info("waiting for running tasks", tasks=len(self._tasks), seconds=self._config.grace_seconds)
            await asyncio.wait(set(self._tasks), timeout=self._config.grace_seconds)
        if self._tasks:
            _log.warning("tasks cut off, their leases lapse", tasks=sorted(task.get_name() for task in self._tasks))
        await cancellation.cancel_and_wait(list(self._tasks))

    async def run_once(self) -> int:
        """Works off everything that is due now and that the tools can do; how many tries that were. Raises Problem."""
        tries = 0
        while True:
            leased = await self._claim(self._config.concurrency, 0.0)
            if not leased:
                return tries
            tries += len(leased)
            for task, request_time in leased:
                self._begin(task, request_time)
            await asyncio.wait(set(self._tasks))

    async def _claim_on(self) -> None:
        pause = FIRST_PAUSE
        while True:
            room = await self._room()
            try:
                leased = await self._claim(room, self._config.wait_seconds)
                pause = FIRST_PAUSE
            except Problem as problem:
                _log.warning("cannot claim", error=problem.message, reason=problem.reason, pause=round(pause, 1))
                leased = []
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads replicas, guards nothing
                pause = min(pause * 2, LONGEST_PAUSE)
            for task, request_time in leased:
                self._begin(task, request_time)

    async def _room(self) -> int:
        """Waits for a free place; how many there are."""
        while len(self._tasks) >= self._config.concurrency:
            await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)
        return self._config.concurrency - len(self._tasks)

    async def _claim(self, most: int, wait: float) -> list[tuple[queue_pb2.LeasedTask, float]]:
        tools = self._servers.tools()
        if not tools:
            await asyncio.sleep(NO_TOOLS_SECONDS if wait else 0)
            return []
        request = queue_pb2.ClaimTasksRequest(
            worker=self._config.name,
            max_tasks=most,
            lease_duration=duration(self._config.lease_seconds),
            wait_duration=duration(wait),
            tools=tools,
        )
        request_time = asyncio.get_running_loop().time()
        answer = await self._queue.ClaimTasks(request, timeout=wait + CALL_SECONDS)
        return [(task, request_time) for task in answer.tasks]

    def _begin(self, leased: queue_pb2.LeasedTask, request_time: float) -> None:
        task = asyncio.create_task(self._work(leased, request_time), name=leased.task.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, leased: queue_pb2.LeasedTask, request_time: float) -> None:
        name = leased.task.name
        strategy = leased.strategy.name
        _log.info("task claimed", task=name, report=leased.task.report, strategy=strategy, fence=leased.token)
        with (
            use_traceparent(leased.traceparent),
            current_telemetry().span("work on task", attributes={"task": name}),
            _running.track_inprogress(),
        ):
            try:
                outcome = await self._execute_under_lease(leased, request_time)
            except LeaseLost as lost:
                outcome = "LEASE_LOST"
                _log.warning("lease lost, nothing is claimed as done", task=name, error=str(lost))
            except Exception:  # noqa: BLE001 - one task never ends the worker
                outcome = "DEFECT"
                _log.exception("a task failed in a way nobody planned; its lease lapses", task=name)
        _outcomes.labels(outcome).inc()

    async def _execute_under_lease(self, leased: queue_pb2.LeasedTask, request_time: float) -> str:
        lease = Lease(self._queue, leased, self._config.lease_seconds, request_time)

        async def work() -> str:
            result = await Execution(leased, self._servers, self._config).run()
            lease.confirm()
            return await self._complete(leased, result)

        return await lease.hold(work)

    async def _complete(self, leased: queue_pb2.LeasedTask, result: ExecutionResult) -> str:
        """Tells the queue, again and again while the lease holds, until it took or refused it."""
        request = completion(leased, result)
        tries = 0
        while True:
            tries += 1
            try:
                await self._queue.CompleteTask(request, timeout=CALL_SECONDS)
            except Unavailable as problem:
                _log.warning("the completion could not be told yet", task=request.name, error=problem.message)
                await asyncio.sleep(RETRY_SECONDS)
            except Problem as problem:
                # Said a second time, it may be refused because the first one was taken.
                unsure = "; an earlier one may have been taken" if tries > 1 else ""
                _log.warning("completion refused" + unsure, task=request.name, error=problem.message)
                return "REFUSED"
            else:
                _log.info(
                    "task ended", task=request.name, outcome=result.failure or "SUCCESS", explanation=result.explanation
                )
                return result.failure or "SUCCESS"


def completion(leased: queue_pb2.LeasedTask, result: ExecutionResult) -> queue_pb2.CompleteTaskRequest:
    """The end of one try, for the wire."""
    return queue_pb2.CompleteTaskRequest(
        name=leased.task.name,
        token=leased.token,
        success=result.success,
        method=leased.strategy.name.removeprefix("strategies/"),
        details=result.details(),
        tools_used=result.tools,
        duration=duration(result.seconds),
        failure=result.failure,
        permanent=result.permanent,
    )
