"""`IngestService` put together."""

from __future__ import annotations

from prunella.v1 import ingest_pb2_grpc
from services.ingest.context import ServiceContext
from services.ingest.handlers.commands import CommandHandlers
from services.ingest.handlers.incidents import IncidentHandlers
from services.ingest.handlers.plugins import PluginHandlers
from services.ingest.handlers.storms import StormHandlers


class IngestHandlers(
    PluginHandlers, IncidentHandlers, StormHandlers, CommandHandlers, ingest_pb2_grpc.IngestServiceServicer
):
    """Door 1 of ingest."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx
