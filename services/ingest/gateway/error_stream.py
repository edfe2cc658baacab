"""The errors one agent reports on its stream.

Rule: one message at a time is forwarded, at most two a second, and one more may wait; a newer one takes its place,
for it has the latest figures of what is not acknowledged. An answer of the queue becomes the acknowledgement; no answer
becomes none, and the agent sends again. The reader of the stream never waits here, and a call under way outlives the
stream, so that the last errors of an agent arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from libs.common.errors import Busy, Problem, Unavailable
from prunella.v1 import agent_pb2 as pb
from services.ingest.gateway.error_forwarding import AGENT, ErrorForwarder
from services.ingest.store.plugins import Identity
from services.ingest.wire import errors as wire

log = logging.getLogger(__name__)

PACE = 0.5

_running: set[asyncio.Task[None]] = set()


class ErrorStream:
    """The errors of one session; `answer` sends an acknowledgement while there is a stream."""

    __slots__ = ("_answer", "_forwarder", "_identity", "_next", "_task", "release")

    def __init__(
        self,
        forwarder: ErrorForwarder,
        identity: Identity,
        answer: Callable[[pb.ConnectResponse], None],
    ) -> None:
        self.release = ""
        self._forwarder = forwarder
        self._identity = identity
        self._answer = answer
        self._next: pb.ErrorReports | None = None
        self._task: asyncio.Task[None] | None = None

    def take(self, message: pb.ErrorReports) -> None:
        """Has the message forwarded to the queue."""
        self._next = message
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            _running.add(self._task)
            self._task.add_done_callback(_running.discard)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                message, self._next = self._next, None
                ack = await self._forward(message)
                if ack is not None:
                    self._answer(pb.ConnectResponse(errors_ack=ack))
                await asyncio.sleep(PACE)
        finally:
            self._task = None

    async def _forward(self, message: pb.ErrorReports) -> pb.ErrorsAck | None:
        good, rejections = wire.reported_errors(self._identity, self.release, message.reports)
        ack = pb.ErrorsAck(sequence=message.sequence, rejections=rejections)
        try:
            outcomes = await self._forwarder.forward([error for _, error in good], AGENT) if good else []
        except (Unavailable, Busy):
            return None
        except Problem as problem:
            ack.rejections.extend(wire.rejection(index, problem) for index, _ in good)
            return ack
        except Exception:
            log.exception("errors of plugin %s could not be forwarded", self._identity.plugin)
            return None
        ack.rejections.extend(wire.rejections(zip((index for index, _ in good), outcomes, strict=True)))
        return ack
