"""The decider put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus, Consumer
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errands import Errands
from libs.common.errors import Invalid, Unavailable
from libs.common.runtime import Service, Sweeps
from libs.common.telemetry import configure
from prunella.v1 import decider_pb2_grpc, ingest_pb2_grpc, patcher_pb2_grpc
from services.decider import playbook
from services.decider.context import SCHEMA, CurrentPolicy, ServiceContext, Settings
from services.decider.errands.ask_sira import runners
from services.decider.errands.sira import Sira
from services.decider.handlers import DeciderHandlers
from services.decider.playbook import Playbook
from services.decider.reactions import REACTIONS
from services.decider.sweeps import SWEEPS


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The decider's settings. Raises BadSettings listing everything that is wrong."""
    return environment.load(Settings, environ)


def read_playbook(path: Path) -> Playbook:
    """The playbook in a file. Raises Invalid naming file, table, field, rule and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"DECIDER_PLAYBOOK: {path} cannot be read ({error}); name a readable TOML file",
            reason="PLAYBOOK_UNREADABLE",
            field="DECIDER_PLAYBOOK",
            file=str(path),
        ) from error
    return playbook.parse(text, str(path))


@dataclass
class Connections:
    """What is opened when first used and closed after everything else."""

    database: Database
    siblings: tuple[grpc.aio.Channel, ...]
    sira: Sira | None
    name: str = "decider connections"

    async def start(self) -> None:
        """Nothing: each is opened when first used."""

    async def stop(self) -> None:
        """Closes all of them."""
        if self.sira:
            await self.sira.close()
        for channel in self.siblings:
            await channel.close()
        await self.database.close()


def build(settings: Settings, clock: Clock) -> Service:
    """The decider, not started. Raises Invalid for a playbook that is wrong."""
    book = read_playbook(settings.playbook)
    telemetry = configure(SCHEMA, settings)
    database = Database(settings.database_url, clock=clock, application_name=SCHEMA)
    bus = Bus(settings.nats_url, database, SCHEMA, clock)
    ingest, patcher = (
        rpc.channel(address, caller=SCHEMA, key=settings.key, telemetry=telemetry)
        for address in (settings.ingest_address, settings.patcher_address)
    )
    sira = Sira(settings.sira_url, settings.sira_token, settings.sira_timeout, clock) if settings.sira_url else None
    ctx = ServiceContext(
        database=database,
        bus=bus,
        clock=clock,
        telemetry=telemetry,
        settings=settings,
        playbook=book,
        ingest=ingest_pb2_grpc.IngestServiceStub(ingest),
        policy=CurrentPolicy(patcher_pb2_grpc.PatcherServiceStub(patcher), clock),
        sira=sira,
    )

    server = _server(ctx)
    parts = [
        Connections(database, (ingest, patcher), sira),
        bus,
        Consumer(bus, database, SCHEMA, REACTIONS, ctx, telemetry),
        Errands(database, SCHEMA, runners(ctx), ctx, telemetry),
        Sweeps(SCHEMA, ctx, SWEEPS, clock),
        server,
    ]
    return Service(SCHEMA, ctx, parts, server)


def _server(ctx: ServiceContext) -> rpc.Server:
    async def check() -> None:
        answers = await asyncio.gather(ctx.database.ping(), ctx.bus.ping(), return_exceptions=True)
        wrong = [answer for answer in answers if isinstance(answer, BaseException)]
        if wrong:
            # Whoever reads this wants to know of both at once.
            raise Unavailable("; ".join(str(answer) for answer in wrong), reason="NOT_READY") from wrong[0]

    add = decider_pb2_grpc.add_DeciderServiceServicer_to_server
    return rpc.Server(
        SCHEMA,
        ctx.settings.listen,
        [(add, DeciderHandlers(ctx), "prunella.v1.DeciderService")],
        key=ctx.settings.key,
        deep_check=check,
        telemetry=ctx.telemetry,
    )
