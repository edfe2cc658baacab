"""ops put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import grpc

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus, Consumer
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errands import Errands
from libs.common.errors import Unavailable
from libs.common.http import HttpServer
from libs.common.runtime import Service, Sweeps
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Telemetry, configure
from prunella.v1 import ops_pb2_grpc
from services.ops.channels.delivery import ChannelSender
from services.ops.context import SCHEMA, ServiceContext, Settings
from services.ops.errands.deliver import RUNNERS
from services.ops.errands.signing_key import SigningKey
from services.ops.errands.span_forwarding import SpanForwarder
from services.ops.errands.uptime_probes import UptimeProbes
from services.ops.forward import Forwarder, passed, services
from services.ops.handlers import OpsHandlers
from services.ops.reactions import REACTIONS
from services.ops.receiver.span_buffer import SpanBuffer
from services.ops.sweeps import SWEEPS
from services.ops.web.app import app

NAME = "ops"
SERVICES = ("ingest", "decider", "patcher", "queue", NAME)
# The largest that any service takes, which is a release for patcher.
LARGEST_MESSAGE = 18 * 1024 * 1024


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of ops. Raises BadSettings listing everything that is wrong."""
    return environment.load(Settings, environ)


@dataclass
class Connections:
    """The database's connections: opened when first used, closed after everything else."""

    database: Database
    name: str = f"{NAME} connections"

    async def start(self) -> None:
        """Nothing: each is opened when first used."""

    async def stop(self) -> None:
        """Closes all of them."""
        await self.database.close()


@dataclass
class Siblings:
    """The channels to the other services: made when first used, None where no address is known."""

    settings: ServiceSettings
    telemetry: Telemetry
    name: str = "siblings"
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.aio.Channel | None:
        """The way to a service."""
        address: str = getattr(self.settings, f"{service}_address")
        if address and service not in self._channels:
            self._channels[service] = rpc.channel(address, caller=NAME, key=self.settings.key, telemetry=self.telemetry)
        return self._channels.get(service)

    async def start(self) -> None:
        """Nothing: each is opened when first used."""

    async def stop(self) -> None:
        """Closes all of them."""
        for channel in self._channels.values():
            await channel.close()


def forwarders(siblings: Siblings) -> list[rpc.Servicer]:
    """What passes on, one for each service."""
    methods = passed()
    made: list[rpc.Servicer] = []
    for name, service in services().items():
        forwarder = Forwarder(name, methods, partial(siblings.channel, name))
        made.append((_add, forwarder, service.full_name))
    return made


def _add(forwarder: Forwarder, server: grpc.aio.Server) -> None:
    server.add_generic_rpc_handlers((forwarder,))


def build(settings: Settings, clock: Clock) -> Service:
    """ops, not started."""
    telemetry = configure(NAME, settings)
    database = Database(settings.database_url, clock=clock, application_name=NAME)
    bus = Bus(settings.nats_url, database, NAME, clock)
    sender = ChannelSender(clock, settings.key)
    ctx = ServiceContext(
        database=database,
        bus=bus,
        clock=clock,
        settings=settings,
        telemetry=telemetry,
        signing_key=SigningKey(settings.state, settings.audit_key),
        sender=sender,
    )
    sweeps = Sweeps(NAME, ctx, SWEEPS, clock)
    ctx.place_soon = lambda: sweeps.nudge("place_facts")
    buffer = SpanBuffer(database)
    forwarder = SpanForwarder(settings.otel_endpoint)

    async def check() -> None:
        answers = await asyncio.gather(database.ping(), bus.ping(), return_exceptions=True)
        wrong = [answer for answer in answers if isinstance(answer, BaseException)]
        if wrong:
            # Whoever reads this wants to know of both at once.
            raise Unavailable("; ".join(str(answer) for answer in wrong), reason="NOT_READY") from wrong[0]

    siblings = Siblings(settings, telemetry)
    ctx.sibling = siblings.channel
    add = ops_pb2_grpc.add_OpsServiceServicer_to_server
    server = rpc.Server(
        NAME,
        settings.listen,
        [(add, OpsHandlers(ctx), "prunella.v1.OpsService"), *forwarders(siblings)],
        key=settings.key,
        deep_check=check,
        telemetry=telemetry,
        max_message=LARGEST_MESSAGE,
    )
    parts = [
        Connections(database),
        siblings,
        buffer,
        forwarder,
        # Siblings send spans as soon as they live, so this opens first and closes last.
        HttpServer(app(server, buffer, forwarder), settings.http_listen),
        bus,
        Consumer(bus, database, NAME, REACTIONS, ctx, telemetry),
        sender,
        Errands(database, SCHEMA, RUNNERS, ctx, telemetry, workers=32),
        sweeps,
        server,
        UptimeProbes(database, clock, SERVICES, siblings.channel),
    ]
    return Service(NAME, ctx, parts, server)
