"""queue put together: nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common import rpc, toml_tables
from libs.common.clock import Clock
from libs.common.database import Transaction
from libs.common.runtime import Service
from libs.common.runtime.assembly import assemble
from prunella.v1 import queue_pb2_grpc
from services.queue import catalogue_file
from services.queue.context import SCHEMA, ServiceContext, Settings
from services.queue.errands.model_client import ModelClient
from services.queue.errands.model_triage import runners
from services.queue.handlers.servicer import QueueHandlers
from services.queue.store import strategies
from services.queue.sweeps import SWEEPS

# A thousand errors with some text each; one alone is bounded field by field.
LARGEST_MESSAGE = 8 * 1024 * 1024
CONNECTIONS = 12
# Statements are planned once, since planning a claim takes longer than claiming. Such a plan may be made while a table
# is empty and is kept when a million rows have come, so it must be one by index; every statement here has its index.
PLANNER = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}


@dataclass
class StrategySeeding:
    """Every strategy of the catalogue has a row with its status before anybody asks for one."""

    ctx: ServiceContext
    name: str = f"{SCHEMA} strategies"

    async def start(self) -> None:
        """Inserts the rows of new ones."""
        names = [strategy.name for strategy in self.ctx.catalogue.strategy_set.strategies]

        async def work(tx: Transaction) -> None:
            await strategies.seed(tx, names)

        await self.ctx.database.transaction(work)

    async def stop(self) -> None:
        """Nothing: the rows outlive the process."""


def build(settings: Settings, clock: Clock) -> Service:
    """queue, not started. Raises Invalid for strategies that are wrong."""
    path = settings.strategies
    text = toml_tables.read_text(path, reason="STRATEGIES_UNREADABLE", variable="QUEUE_STRATEGIES")
    catalogue = catalogue_file.parse(text, str(path))
    base = assemble(SCHEMA, settings, clock, pool_size=CONNECTIONS, session=PLANNER)
    model = None
    if settings.model_url:
        model = ModelClient(
            settings.model_url, settings.model_token, settings.model_name, settings.model_timeout, clock
        )
        base.closers.append(model.close)
    ctx = ServiceContext(
        *base.shared,
        settings=settings,
        catalogue=catalogue,
        model=model,
    )
    sweeps = base.sweeps(SWEEPS, ctx)
    ctx.nudge_triage = lambda: sweeps.trigger("triage")
    add = queue_pb2_grpc.add_QueueServiceServicer_to_server
    server = base.server(
        [(add, QueueHandlers(ctx), "prunella.v1.QueueService")], rpc.Server, max_message=LARGEST_MESSAGE
    )
    ctx.draining = lambda: server.why == "draining"
    return base.service(ctx, server, [StrategySeeding(ctx), base.errands(runners(ctx), ctx), sweeps])
