"""queue put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errands import Errands
from libs.common.errors import Invalid, Unavailable
from libs.common.runtime import Service, Sweeps
from libs.common.telemetry import configure
from prunella.v1 import queue_pb2_grpc
from services.queue import catalogue_file
from services.queue.catalogue import Catalogue
from services.queue.context import SCHEMA, ServiceContext, Settings
from services.queue.errands.model_client import ModelClient
from services.queue.errands.model_triage import runners
from services.queue.handlers.servicer import QueueHandlers
from services.queue.store import strategies
from services.queue.sweeps import SWEEPS

NAME = SCHEMA
# A thousand errors with some text each; one alone is bounded field by field.
LARGEST_MESSAGE = 8 * 1024 * 1024
CONNECTIONS = 12
# Statements are planned once, since planning a claim takes longer than claiming. Such a plan may be made while a table
# is empty and is kept when a million rows have come, so it must be one by index; every statement here has its index.
PLANNER = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of queue. Raises BadSettings listing everything that is wrong."""
    return environment.load(Settings, environ)


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in a file. Raises Invalid naming file, table, field, rule and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"QUEUE_STRATEGIES: {path} cannot be read ({error}); name a readable TOML file",
            reason="STRATEGIES_UNREADABLE",
            field="QUEUE_STRATEGIES",
            file=str(path),
        ) from error
    return catalogue_file.parse(text, str(path))


@dataclass
class Connections:
    """What is opened when first used and closed after everything else."""

    ctx: ServiceContext
    name: str = f"{NAME} connections"

    async def start(self) -> None:
        """Nothing: each is opened when first used."""

    async def stop(self) -> None:
        """Closes all of them."""
        if self.ctx.model:
            await self.ctx.model.close()
        await self.ctx.database.close()


@dataclass
class StrategySeeding:
    """Every strategy of the catalogue has a status before anybody asks for one."""

    ctx: ServiceContext
    name: str = f"{NAME} strategies"

    async def start(self) -> None:
        """Adds those of new strategies."""
        names = [strategy.name for strategy in self.ctx.catalogue.strategy_set.strategies]

        async def work(tx: Transaction) -> None:
            await strategies.seed(tx, names)

        await self.ctx.database.transaction(work)

    async def stop(self) -> None:
        """Nothing: statuses outlive the process."""


def build(settings: Settings, clock: Clock) -> Service:
    """queue, not started. Raises Invalid for strategies that are wrong."""
    catalogue = read_catalogue(settings.strategies)
    telemetry = configure(NAME, settings)
    database = Database(
        settings.database_url, clock=clock, pool_size=CONNECTIONS, application_name=NAME, session=PLANNER
    )
    bus = Bus(settings.nats_url, database, NAME, clock)
    model = None
    if settings.model_url:
        model = ModelClient(
            settings.model_url, settings.model_token, settings.model_name, settings.model_timeout, clock
        )
    ctx = ServiceContext(
        database=database,
        bus=bus,
        clock=clock,
        telemetry=telemetry,
        settings=settings,
        catalogue=catalogue,
        model=model,
    )
    sweeps = Sweeps(NAME, ctx, SWEEPS, clock)
    ctx.nudge_triage = lambda: sweeps.nudge("triage")
    server = _server(ctx)
    ctx.draining = lambda: server.why == "draining"
    parts = [
        Connections(ctx),
        bus,
        StrategySeeding(ctx),
        Errands(database, NAME, runners(ctx), ctx, telemetry),
        sweeps,
        server,
    ]
    return Service(NAME, ctx, parts, server)


def _server(ctx: ServiceContext) -> rpc.Server:
    async def check() -> None:
        answers = await asyncio.gather(ctx.database.ping(), ctx.bus.ping(), return_exceptions=True)
        wrong = [answer for answer in answers if isinstance(answer, BaseException)]
        if wrong:
            # Whoever reads this wants to know of both at once.
            raise Unavailable("; ".join(str(answer) for answer in wrong), reason="NOT_READY") from wrong[0]

    add = queue_pb2_grpc.add_QueueServiceServicer_to_server
    return rpc.Server(
        NAME,
        ctx.settings.listen,
        [(add, QueueHandlers(ctx), "prunella.v1.QueueService")],
        key=ctx.settings.key,
        deep_check=check,
        telemetry=ctx.telemetry,
        max_message=LARGEST_MESSAGE,
    )
