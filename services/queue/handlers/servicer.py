"""`QueueService`, put together from its parts."""

from __future__ import annotations

from prunella.v1 import queue_pb2_grpc
from services.queue.context import ServiceContext
from services.queue.handlers.claims import ClaimHandlers
from services.queue.handlers.merges import MergeHandlers
from services.queue.handlers.reports import ReportHandlers
from services.queue.handlers.strategies import StrategyHandlers
from services.queue.handlers.tasks import TaskHandlers


class QueueHandlers(
    ReportHandlers,
    MergeHandlers,
    ClaimHandlers,
    TaskHandlers,
    StrategyHandlers,
    queue_pb2_grpc.QueueServiceServicer,
):
    """prunella.v1.QueueService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx
