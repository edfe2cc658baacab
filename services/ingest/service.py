"""Ingest put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus, Consumer
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.http import HttpServer
from libs.common.runtime import Service, Sweeps
from libs.common.telemetry import Telemetry, configure
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


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Ingest's settings. Raises BadSettings listing everything that is wrong."""
    return environment.load(Settings, environ)


def build(settings: Settings, clock: Clock) -> Service:
    """Ingest, not started."""
    telemetry = configure(SCHEMA, settings)
    database = Database(settings.database_url, clock=clock, pool_size=CONNECTIONS, application_name=SCHEMA)
    bus = Bus(settings.nats_url, database, SCHEMA, clock)
    channel = rpc.channel(settings.patcher_address, caller=SCHEMA, key=settings.key, telemetry=telemetry)
    patcher = patcher_pb2_grpc.PatcherServiceStub(channel)
    ctx = ServiceContext(database, bus, clock, telemetry, settings, patcher)
    ctx.sessions = Sessions(database)
    ctx.error_forwarder = ErrorForwarder(_queue(settings, telemetry), clock)
    ctx.committer = Committer(
        database,
        clock,
        telemetry,
        act_by=settings.act_by,
        healthy_windows=settings.healthy_windows,
        storm=settings.storm(),
    )
    ctx.identities = Identities(database, clock, ctx.committer.prime)
    _connect_quarantine(ctx)
    bus.on_wake(ctx.sessions.wake)

    async def check() -> None:
        await database.ping()
        await bus.ping()

    server = GatewayServer(
        SCHEMA,
        settings.listen,
        [
            (agent_pb2_grpc.add_AgentGatewayServicer_to_server, AgentGateway(ctx), "prunella.v1.AgentGateway"),
            (ingest_pb2_grpc.add_IngestServiceServicer_to_server, IngestHandlers(ctx), "prunella.v1.IngestService"),
        ],
        key=settings.key,
        deep_check=check,
        telemetry=telemetry,
        max_message=LARGEST_MESSAGE,
        streams_per_connection=STREAMS_PER_CONNECTION,
        sessions=ctx.sessions,
    )
    parts = [
        bus,
        ctx.committer,
        Consumer(bus, database, SCHEMA, REACTIONS, ctx, telemetry),
        Sweeps(SCHEMA, ctx, SWEEPS, clock),
        ctx.error_forwarder,
        HttpServer(app(ctx, server), settings.http_listen),
        server,
    ]
    return Service(SCHEMA, ctx, parts, server)


def _queue(settings: Settings, telemetry: Telemetry) -> queue_pb2_grpc.QueueServiceAsyncStub | None:
    if not settings.queue_address:
        return None
    channel = rpc.channel(settings.queue_address, caller=SCHEMA, key=settings.key, telemetry=telemetry)
    return queue_pb2_grpc.QueueServiceStub(channel)


def _connect_quarantine(ctx: ServiceContext) -> None:
    running: set[asyncio.Task[None]] = set()

    def quarantine(identity: Identity, boots: Sequence[str]) -> None:
        task = asyncio.ensure_future(departure.quarantine(ctx, identity, boots))
        running.add(task)
        task.add_done_callback(running.discard)

    ctx.committer.quarantine = quarantine
