"""A queue that answers as told, for tests of ingest: it counts like the real one, hangs, refuses or is away."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy.local.testing import Plane
from libs.common import rpc
from libs.common.access import caller
from libs.common.errors import Problem
from prunella.v1 import queue_pb2, queue_pb2_grpc


async def _nothing() -> None:
    return None


@dataclass
class ToldQueue(queue_pb2_grpc.QueueServiceServicer):
    """`answers` may raise a Problem or give a refusal for an error; `hangs` lets no answer out."""

    answers: Callable[[queue_pb2.ReportedError], queue_pb2.ReportOutcome | Problem | None] = lambda _: None
    hangs: bool = False
    asked: list[queue_pb2.ReportErrorsRequest] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    _server: rpc.Server | None = None

    async def ReportErrors(self, request: Any, context: Any) -> queue_pb2.ReportErrorsResponse:
        self.asked.append(request)
        self.callers.add(caller(context))
        if self.hangs:
            await asyncio.sleep(3600)
        outcomes = []
        for reported in request.errors:
            told = self.answers(reported)
            if isinstance(told, Problem):
                raise told
            if told is None:
                key = (reported.plugin, reported.error.id)
                told = queue_pb2.ReportOutcome(
                    report=f"errorReports/{reported.error.id}", created=key not in self.counted
                )
                self.counted[key] = max(self.counted.get(key, 0), reported.error.occurrences or 1)
            outcomes.append(told)
        return queue_pb2.ReportErrorsResponse(outcomes=outcomes)

    @property
    def errors(self) -> list[queue_pb2.ReportedError]:
        """Every error it was told, in order."""
        return [error for request in self.asked for error in request.errors]

    async def start(self, plane: Plane) -> ToldQueue:
        """Listens where the plane expects its queue."""
        add = queue_pb2_grpc.add_QueueServiceServicer_to_server
        services = [(add, self, "prunella.v1.QueueService")]
        self._server = rpc.Server("queue", plane.addresses["queue"], services, key=plane.key, deep_check=_nothing)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Is away."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
