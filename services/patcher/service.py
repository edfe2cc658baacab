"""The patcher put together: nothing is decided here."""

from __future__ import annotations

from libs.common import rpc
from libs.common.clock import Clock
from libs.common.runtime import Service
from libs.common.runtime.assembly import assemble
from prunella.v1 import ingest_pb2_grpc, patcher_pb2_grpc
from services.patcher.context import SCHEMA, ServiceContext, Settings, pinned_keys
from services.patcher.errands import COMMANDS, STAGING
from services.patcher.handlers import PatcherHandlers
from services.patcher.reactions import REACTIONS
from services.patcher.staging import Runner
from services.patcher.staging.http import HttpRunner
from services.patcher.staging.local import LocalRunner
from services.patcher.staging.report import SandboxReport
from services.patcher.sweeps import SWEEPS

# An artifact of 16 MiB with its envelope.
LARGEST_MESSAGE = 18 * 1024 * 1024
CONNECTIONS = 12


def build(settings: Settings, clock: Clock) -> Service:
    """The patcher, not started. Raises Invalid for release keys that are wrong."""
    keys = pinned_keys(settings.release_keys)
    base = assemble(SCHEMA, settings, clock, pool_size=CONNECTIONS)
    runner: Runner = LocalRunner(settings.sandboxes)
    if settings.staging_url:
        runner = HttpRunner(settings.staging_url, settings.staging_token)
    ctx = ServiceContext(
        *base.shared,
        settings=settings,
        keys=keys,
        runner=runner,
        ingest=ingest_pb2_grpc.IngestServiceStub(base.channel("ingest")),
    )
    add = patcher_pb2_grpc.add_PatcherServiceServicer_to_server
    server = base.server(
        [(add, PatcherHandlers(ctx), "prunella.v1.PatcherService")], rpc.Server, max_message=LARGEST_MESSAGE
    )
    parts = [
        base.consumer(REACTIONS, ctx),
        # Apart, so that minutes of staging never hold up a commit or a rollback, nor lengthen their leases.
        base.errands(COMMANDS, ctx, workers=16),
        base.errands(STAGING, ctx, workers=2 * settings.sandboxes),
        SandboxReport(runner),
        base.sweeps(SWEEPS, ctx),
    ]
    return base.service(ctx, server, parts)
