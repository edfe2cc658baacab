"""A lease as its holder may trust it.

Rule: the worker counts on its own monotonic clock from before it asked, and stops trusting a margin early (5 s, of a
short lease a third). It asks for more each third of the lease. When the queue says no, or no yes comes in time, the
work is cut off at once and nothing is claimed as done; the queue gives the task to somebody else. The token, not the
clock, keeps records safe; the clock keeps tools from being called for a task that is no longer ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from google.protobuf.duration_pb2 import Duration

from libs.common import cancellation
from libs.common.errors import Problem, Unavailable
from prunella.v1 import queue_pb2

T = TypeVar("T")

MARGIN_SECONDS = 5.0
# A claim answered this soon (share of the trusted time left) needs no question about its lease.
FRESH_SHARE = 0.75
RETRY_SECONDS = 0.5
CALL_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class LeaseLost(Exception):  # noqa: N818 - a word of the task's life
    """The task is no longer ours."""


def duration(seconds: float) -> Duration:
    """Seconds for the wire."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


class Lease:
    """The lease of one task, from `asked` (loop time before the claim was sent)."""

    def __init__(self, queue: Any, leased: queue_pb2.LeasedTask, seconds: float, request_time: float) -> None:
        self.name = leased.task.name
        self.token = leased.token
        self.lost = ""
        self._queue = queue
        self._seconds = seconds
        self._until = request_time + self._trusted
        self._bound: asyncio.Timeout | None = None

    @property
    def _trusted(self) -> float:
        return self._seconds - min(MARGIN_SECONDS, self._seconds / 3)

    @property
    def left(self) -> float:
        """Seconds for which the task is surely ours; 0 when it is not."""
        return 0.0 if self.lost else max(0.0, self._until - asyncio.get_running_loop().time())

    def confirm(self) -> None:
        """Raises LeaseLost unless the task is surely ours.

        After a pause of the whole process an answer may be read before the timer that should have cut it off.
        """
        if not self.left:
            raise LeaseLost(self.lost or "no word from the queue before the lease ended")

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does the work while the lease holds, prolonging it. Raises LeaseLost, the work cut off."""
        if self.left < self._trusted * FRESH_SHARE:
            # A claim that waited long says little about when its lease began.
            await self._extend_first()
        extending = asyncio.create_task(self._extend_periodically(), name=f"lease of {self.name}")
        try:
            async with asyncio.timeout_at(self._until) as self._bound:
                return await work()
        except TimeoutError:
            if self._bound is None or not self._bound.expired():
                raise
            raise LeaseLost(self.lost or "no word from the queue before the lease ended") from None
        finally:
            await cancellation.cancel_and_wait([extending])

    async def _extend_first(self) -> None:
        for pause in (RETRY_SECONDS, RETRY_SECONDS, 0.0):
            try:
                await self._extend_once(CALL_SECONDS)
                return
            except Unavailable as problem:
                self.lost = problem.message
                await asyncio.sleep(pause)
            except Problem as problem:
                self.lost = problem.message
                break
        raise LeaseLost(self.lost)

    async def _extend_periodically(self) -> None:
        pause = self._seconds / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._seconds / 3
            try:
                await self._extend_once(min(CALL_SECONDS, max(0.5, self.left)))
            except Unavailable as problem:
                _log.warning("the lease could not be prolonged yet", task=self.name, error=problem.message)
                pause = RETRY_SECONDS
            except Problem as problem:
                self.lost = problem.message
                self._reschedule(asyncio.get_running_loop().time())
                return

    async def _extend_once(self, timeout: float) -> None:
        request_time = asyncio.get_running_loop().time()
        request = queue_pb2.ExtendTaskRequest(name=self.name, token=self.token, lease_duration=duration(self._seconds))
        await self._queue.ExtendTask(request, timeout=timeout)
        self.lost, self._until = "", request_time + self._trusted
        self._reschedule(self._until)

    def _reschedule(self, when: float) -> None:
        if self._bound is not None and not self._bound.expired():
            self._bound.reschedule(when)
