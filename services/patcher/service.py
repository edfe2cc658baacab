"""The patcher put together: nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus, Consumer
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errands import Errands
from libs.common.runtime import Service, Sweeps
from libs.common.telemetry import configure
from prunella.v1 import ingest_pb2_grpc, patcher_pb2_grpc
from services.patcher.context import SCHEMA, ServiceContext, Settings, pinned_keys
from services.patcher.errands import COMMANDS, STAGING
from services.patcher.handlers import PatcherHandlers
from services.patcher.reactions import REACTIONS
from services.patcher.staging import Runner
from services.patcher.staging.http import HttpRunner
from services.patcher.staging.local import LocalRunner
from services.patcher.sweeps import SWEEPS

# An artifact of 16 MiB with its envelope.
LARGEST_MESSAGE = 18 * 1024 * 1024


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The patcher's settings. Raises BadSettings listing everything that is wrong."""
    return environment.load(Settings, environ)


def build(settings: Settings, clock: Clock) -> Service:
    """The patcher, not started. Raises Invalid for release keys that are wrong."""
    keys = pinned_keys(settings.release_keys)
    telemetry = configure(SCHEMA, settings)
    database = Database(settings.database_url, clock=clock, pool_size=12, application_name=SCHEMA)
    bus = Bus(settings.nats_url, database, SCHEMA, clock)
    channel = rpc.channel(settings.ingest_address, caller=SCHEMA, key=settings.key, telemetry=telemetry)
    runner: Runner = HttpRunner(settings.staging_url, settings.staging_token) if settings.staging_url else LocalRunner()
    ctx = ServiceContext(
        database=database,
        bus=bus,
        clock=clock,
        telemetry=telemetry,
        settings=settings,
        keys=keys,
        runner=runner,
        ingest=ingest_pb2_grpc.IngestServiceStub(channel),
    )

    async def check() -> None:
        await database.ping()
        await bus.ping()

    add = patcher_pb2_grpc.add_PatcherServiceServicer_to_server
    server = rpc.Server(
        SCHEMA,
        settings.listen,
        [(add, PatcherHandlers(ctx), "prunella.v1.PatcherService")],
        key=settings.key,
        deep_check=check,
        telemetry=telemetry,
        max_message=LARGEST_MESSAGE,
    )
    parts = [
        bus,
        Consumer(bus, database, SCHEMA, REACTIONS, ctx, telemetry),
        # Apart, so that minutes of staging never hold up a commit or a rollback, nor lengthen their leases.
        Errands(database, SCHEMA, COMMANDS, ctx, telemetry, workers=16),
        Errands(database, SCHEMA, STAGING, ctx, telemetry, workers=4),
        Sweeps(SCHEMA, ctx, SWEEPS, clock),
        server,
    ]
    return Service(SCHEMA, ctx, parts, server)
