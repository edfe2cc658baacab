"""Errors of plugins on their way to the queue: many agents, few calls.

Rule: nobody is told that an error is durable before the queue said so. What waits goes along in one call of up to 1,000
errors and half a mebibyte, with at most two calls at once, each with a deadline and behind a breaker. At most 32 MiB
wait, for at most ten seconds; whoever finds no room or no answer keeps the errors and tells them again. Nothing here is
on the way of a beat.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from libs.common import cancellation
from libs.common.breaker import BreakerRule, Guarded
from libs.common.clock import Clock
from libs.common.errors import Busy, Problem, Refused, Unavailable
from libs.common.telemetry import counter
from prunella.v1 import queue_pb2, queue_pb2_grpc

log = logging.getLogger(__name__)

AGENT = "agent"
HTTP = "http"
MOST_ERRORS = 1000
MOST_BYTES = 512 * 1024
MOST_WAITING = 32 * 1024 * 1024
CALLS = 2
CALL_SECONDS = 5.0
WAIT_SECONDS = 10.0
AGAIN_SECONDS = 5.0
RULE = BreakerRule(open_for=AGAIN_SECONDS)

_told = counter("error_reports_total", "Error reports of plugins, by source and what became of them", ("source", "end"))


@dataclass
class Asked:
    """Errors that stay together, and the answer to come. With a `request_id` of its own it travels alone."""

    errors: Sequence[queue_pb2.ReportedError]
    source: str
    request_id: str
    size: int
    answer: asyncio.Future[list[queue_pb2.ReportOutcome]]


class Reports:
    """Hands errors to the queue; `queue` is None when this plane has none."""

    name = "error reports"

    def __init__(self, queue: queue_pb2_grpc.QueueServiceAsyncStub | None, clock: Clock) -> None:
        self.away = False
        self._queue = queue
        self._guarded = Guarded("queue", clock, RULE, fails=_away)
        self._waiting: deque[Asked] = deque()
        self._bytes = 0
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing: calls are made when there is something to tell."""

    async def stop(self) -> None:
        """Ends calls that run; who waits for an answer gets none and tells again."""
        await cancellation.cancel_and_wait(self._running)
        while self._waiting:
            self._end(self._waiting.popleft(), _unanswered("ingest stops"))

    async def ask(
        self, errors: Sequence[queue_pb2.ReportedError], source: str, request_id: str = ""
    ) -> list[queue_pb2.ReportOutcome]:
        """What became of each error, in order. Raises Unavailable or Busy when they must be told again."""
        if self._queue is None:
            raise Refused(
                "this plane has no queue for error reports; set PRUNELLA_QUEUE_ADDRESS for ingest",
                reason="QUEUE_UNKNOWN",
            )
        parts = [
            self._enqueue(part, source, f"{request_id}/{number}" if request_id else "")
            for number, part in enumerate(_parts(errors))
        ]
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                answers = await asyncio.gather(*parts)
        except (TimeoutError, Problem) as problem:
            _told.labels(source, "unanswered" if _away(problem) else "refused").inc(len(errors))
            if not isinstance(problem, Problem):
                raise _unanswered("the queue does not answer") from problem
            raise
        outcomes = [outcome for answer in answers for outcome in answer]
        refused = sum(1 for outcome in outcomes if outcome.refusal)
        _told.labels(source, "refused").inc(refused)
        _told.labels(source, "accepted").inc(len(outcomes) - refused)
        return outcomes

    def _enqueue(
        self, errors: Sequence[queue_pb2.ReportedError], source: str, request_id: str
    ) -> asyncio.Future[list[queue_pb2.ReportOutcome]]:
        size = sum(error.ByteSize() for error in errors)
        if self._bytes + size > MOST_WAITING:
            raise Busy("too many error reports wait", reason="REPORTS_WAITING", retry_after=AGAIN_SECONDS)
        self._bytes += size
        asked = Asked(errors, source, request_id, size, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if len(self._running) < CALLS:
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return asked.answer

    async def _run(self) -> None:
        while self._waiting:
            taken = self._take()
            try:
                await self._tell(taken)
            finally:
                for asked in taken:
                    self._end(asked, _unanswered("the call to the queue was ended"))

    def _take(self) -> list[Asked]:
        taken: list[Asked] = []
        count = size = 0
        while self._waiting:
            first = self._waiting[0]
            if first.answer.done():
                # Who asked has waited too long and tells it again.
                self._end(self._waiting.popleft(), None)
                continue
            count, size = count + len(first.errors), size + first.size
            together = not taken or (not first.request_id and not taken[0].request_id)
            fits = not taken or (count <= MOST_ERRORS and size <= MOST_BYTES and first.source == taken[0].source)
            if not together or not fits:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _tell(self, taken: list[Asked]) -> None:
        try:
            outcomes = await self._call(taken)
        except Problem as problem:
            if len(taken) > 1 and not _away(problem):
                # One of them may be what the queue cannot take; the others shall not suffer for it.
                for asked in taken:
                    await self._tell([asked])
                return
            for asked in taken:
                self._end(asked, problem)
            return
        for asked in taken:
            answer, outcomes = outcomes[: len(asked.errors)], outcomes[len(asked.errors) :]
            if not asked.answer.done():
                asked.answer.set_result(answer)

    async def _call(self, taken: list[Asked]) -> list[queue_pb2.ReportOutcome]:
        if not taken:
            return []
        request = queue_pb2.ReportErrorsRequest(
            errors=[error for asked in taken for error in asked.errors], source=taken[0].source
        )
        request.request_id = taken[0].request_id or content(request)
        assert self._queue is not None
        queue = self._queue

        async def call() -> queue_pb2.ReportErrorsResponse:
            return await queue.ReportErrors(request, timeout=CALL_SECONDS)

        try:
            answer = await self._guarded.call(call, timeout=CALL_SECONDS + 1)
        except (TimeoutError, Problem) as problem:
            self._note(away=_away(problem), why=str(problem))
            if not isinstance(problem, Problem):
                raise _unanswered("the queue does not answer") from problem
            raise
        self._note(away=False)
        if len(answer.outcomes) != len(request.errors):
            log.error("the queue answered %d of %d error reports", len(answer.outcomes), len(request.errors))
            raise _unanswered("the queue's answer is not whole")
        return list(answer.outcomes)

    def _note(self, *, away: bool, why: str = "") -> None:
        # One line when the queue goes and one when it is back, however many agents wait.
        if away and not self.away:
            log.warning("error reports wait with their agents: %s", why)
        elif self.away and not away:
            log.info("error reports are told to the queue again")
        self.away = away

    def _end(self, asked: Asked, problem: Problem | None) -> None:
        self._bytes -= asked.size
        asked.size = 0
        if problem is not None and not asked.answer.done():
            asked.answer.set_exception(problem)
            asked.answer.exception()  # read: who asked may have gone away


def content(request: queue_pb2.ReportErrorsRequest) -> str:
    """An id that is the same for the same errors of the same plugins."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def _parts(errors: Sequence[queue_pb2.ReportedError]) -> list[list[queue_pb2.ReportedError]]:
    parts: list[list[queue_pb2.ReportedError]] = [[]]
    size = 0
    for error in errors:
        size += error.ByteSize()
        if parts[-1] and (size > MOST_BYTES or len(parts[-1]) >= MOST_ERRORS):
            parts.append([])
            size = error.ByteSize()
        parts[-1].append(error)
    return parts


def _away(error: Exception) -> bool:
    return isinstance(error, (Unavailable, Busy, TimeoutError))


def _unanswered(why: str) -> Unavailable:
    return Unavailable(f"{why}; tell the errors again", reason="QUEUE_UNANSWERED", retry_after=AGAIN_SECONDS)
