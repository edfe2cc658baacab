"""The errors one agent tells on its stream.

Rule: one message at a time is asked about, at most two a second, and one more may wait; a newer one takes its place,
for it tells the latest figures of what is not acknowledged. An answer of the queue becomes the acknowledgement; no
answer becomes none, and the agent tells again. The reader of the stream never waits here, and a question under way
outlives the stream, so that the last words of an agent are heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from libs.common.errors import Busy, Problem, Unavailable
from prunella.v1 import agent_pb2 as pb
from services.ingest.gateway import reports
from services.ingest.store.plugins import Identity
from services.ingest.wire import errors as wire

log = logging.getLogger(__name__)

PACE = 0.5

_running: set[asyncio.Task[None]] = set()


class Errors:
    """What one session tells; `answer` sends an acknowledgement while there is a stream."""

    __slots__ = ("_answer", "_identity", "_next", "_reports", "_task", "release")

    def __init__(
        self, asked: reports.Reports, identity: Identity, answer: Callable[[pb.ConnectResponse], None]
    ) -> None:
        self.release = ""
        self._reports = asked
        self._identity = identity
        self._answer = answer
        self._next: pb.ErrorReports | None = None
        self._task: asyncio.Task[None] | None = None

    def take(self, message: pb.ErrorReports) -> None:
        """Has the message told to the queue."""
        self._next = message
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            _running.add(self._task)
            self._task.add_done_callback(_running.discard)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                message, self._next = self._next, None
                ack = await self._told(message)
                if ack is not None:
                    self._answer(pb.ConnectResponse(errors_ack=ack))
                await asyncio.sleep(PACE)
        finally:
            self._task = None

    async def _told(self, message: pb.ErrorReports) -> pb.ErrorsAck | None:
        good, rejections = wire.told(self._identity, self.release, message.reports)
        ack = pb.ErrorsAck(sequence=message.sequence, rejections=rejections)
        try:
            outcomes = await self._reports.ask([error for _, error in good], reports.AGENT) if good else []
        except (Unavailable, Busy):
            return None
        except Problem as problem:
            ack.rejections.extend(wire.never(index, problem) for index, _ in good)
            return ack
        except Exception:
            log.exception("errors of plugin %s could not be told", self._identity.plugin)
            return None
        ack.rejections.extend(wire.rejections(zip((index for index, _ in good), outcomes, strict=True)))
        return ack
