"""Someone asked: how much work there is."""

from __future__ import annotations

from typing import Any

from prunella.v1 import queue_pb2, queue_pb2_grpc
from services.queue import stats, store
from services.queue.doors import Doors


class QueueHandlers(queue_pb2_grpc.QueueServiceServicer):
    """QueueService over the store."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors

    async def GetQueueStats(  # noqa: N802 - the method's name on the wire
        self, _request: queue_pb2.GetQueueStatsRequest, _context: Any
    ) -> queue_pb2.GetQueueStatsResponse:
        """Tasks by state."""
        async with self.doors.database.reading() as reading:
            counted = await store.tasks_by_state(reading)
        response = queue_pb2.GetQueueStatsResponse(tasks=stats.complete(counted))
        response.time.FromDatetime(self.doors.clock.now())
        return response
