"""The decider put together: nothing is decided here."""

from __future__ import annotations

from libs.common import rpc, toml_tables
from libs.common.clock import Clock
from libs.common.runtime import Service
from libs.common.runtime.assembly import assemble
from prunella.v1 import decider_pb2_grpc, ingest_pb2_grpc, patcher_pb2_grpc
from services.decider import playbook
from services.decider.context import SCHEMA, CurrentPolicy, ServiceContext, Settings
from services.decider.errands.ask_sira import runners
from services.decider.errands.sira import Sira
from services.decider.handlers import DeciderHandlers
from services.decider.reactions import REACTIONS
from services.decider.sweeps import SWEEPS


def build(settings: Settings, clock: Clock) -> Service:
    """The decider, not started. Raises Invalid for a playbook that is wrong."""
    path = settings.playbook
    text = toml_tables.read_text(path, reason="PLAYBOOK_UNREADABLE", variable="DECIDER_PLAYBOOK")
    remedies = playbook.parse(text, str(path))
    base = assemble(SCHEMA, settings, clock)
    sira = Sira(settings.sira_url, settings.sira_token, settings.sira_timeout, clock) if settings.sira_url else None
    if sira:
        base.closers.append(sira.close)
    ctx = ServiceContext(
        *base.shared,
        settings=settings,
        playbook=remedies,
        ingest=ingest_pb2_grpc.IngestServiceStub(base.channel("ingest")),
        policy=CurrentPolicy(patcher_pb2_grpc.PatcherServiceStub(base.channel("patcher")), clock),
        sira=sira,
    )
    add = decider_pb2_grpc.add_DeciderServiceServicer_to_server
    server = base.server([(add, DeciderHandlers(ctx), "prunella.v1.DeciderService")], rpc.Server)
    parts = [base.consumer(REACTIONS, ctx), base.errands(runners(ctx), ctx), base.sweeps(SWEEPS, ctx)]
    return base.service(ctx, server, parts)
