"""Ingest put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from libs.common import rpc
from libs.common.clock import Clock
from libs.common.http import HttpServer
from libs.common.runtime import Service
from libs.common.runtime.assembly import assemble
from prunella.v1 import agent_pb2_grpc, ingest_pb2_grpc, patcher_pb2_grpc, queue_pb2_grpc
from services.ingest.context import SCHEMA, ServiceContext, Settings
from services.ingest.gateway import departure
from services.ingest.gateway.committer import Committer
from services.ingest.gateway.error_forwarding import ErrorForwarder
from services.ingest.gateway.identity import Identities
from services.ingest.gateway.server import GatewayServer
from services.ingest.gateway.servicer import AgentGateway
from services.ingest.gateway.sessions import Sessions
from services.ingest.handlers.servicer import IngestHandlers
from services.ingest.http.app import app
from services.ingest.reactions import REACTIONS
from services.ingest.store.plugins import Identity
from services.ingest.sweeps import SWEEPS

# A batch of 1,000 beats; a single one is far smaller and bounded field by field.
LARGEST_MESSAGE = 1024 * 1024
# Relays and light agents share a connection.
STREAMS_PER_CONNECTION = 5000
CONNECTIONS = 16


def build(settings: Settings, clock: Clock) -> Service:
    """Ingest, not started."""
    base = assemble(SCHEMA, settings, clock, pool_size=CONNECTIONS)
    patcher = patcher_pb2_grpc.PatcherServiceStub(base.channel("patcher"))
    ctx = ServiceContext(*base.shared, settings, patcher)
    ctx.sessions = Sessions(base.database)
    queue = base.channel_if_known("queue")
    ctx.error_forwarder = ErrorForwarder(queue_pb2_grpc.QueueServiceStub(queue) if queue else None, clock)
    ctx.committer = Committer(
        base.database,
        clock,
        base.telemetry,
        healthy_windows=settings.healthy_windows,
        reopening=settings.reopening(),
        storm=settings.storm(),
        limits=settings.limits(),
    )
    ctx.identities = Identities(base.database, clock, ctx.committer.prime)
    _connect_quarantine(ctx)
    base.bus.on_wake(ctx.sessions.wake)
    servicers: list[rpc.Servicer] = [
        (agent_pb2_grpc.add_AgentGatewayServicer_to_server, AgentGateway(ctx), "prunella.v1.AgentGateway"),
        (ingest_pb2_grpc.add_IngestServiceServicer_to_server, IngestHandlers(ctx), "prunella.v1.IngestService"),
    ]
    server = base.server(
        servicers,
        GatewayServer,
        max_message=LARGEST_MESSAGE,
        streams_per_connection=STREAMS_PER_CONNECTION,
        sessions=ctx.sessions,
    )
    http = HttpServer(app(ctx, server), settings.http_listen)
    parts = [ctx.committer, base.consumer(REACTIONS, ctx), base.sweeps(SWEEPS, ctx), ctx.error_forwarder, http]
    return base.service(ctx, server, parts)


def _connect_quarantine(ctx: ServiceContext) -> None:
    running: set[asyncio.Task[None]] = set()

    def quarantine(identity: Identity, boots: Sequence[str]) -> None:
        task = asyncio.ensure_future(departure.quarantine(ctx, identity, boots))
        running.add(task)
        task.add_done_callback(running.discard)

    ctx.committer.quarantine = quarantine
