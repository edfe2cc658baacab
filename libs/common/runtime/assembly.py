"""What every service is put together from; a service adds its own parts, and nothing twice.

Rule: parts start in the order of `service` and stop in reverse, so what others use is there before them and goes after
them. A service is ready when its database and its bus are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from libs.common import rpc
from libs.common.bus import Bus, Consumer, Reaction
from libs.common.clock import Clock, SystemClock
from libs.common.database import Database
from libs.common.errands import Errands, Runner
from libs.common.errors import Unavailable
from libs.common.idempotency import Requests
from libs.common.partitions import Partitions
from libs.common.runtime.loops import Sweep, Sweeps
from libs.common.runtime.service import Service
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Telemetry, configure

S = TypeVar("S", bound=rpc.Server)


@dataclass
class SharedContext:
    """What the context of every service holds."""

    database: Database
    bus: Bus
    clock: Clock
    telemetry: Telemetry
    requests: Requests


@dataclass
class Assembly(SharedContext):
    """The parts that a service has in common with all others. It is a part itself: what is opened when first used.

    `closers` close the clients of a service, after everything else has stopped.
    """

    schema: str
    settings: ServiceSettings
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.schema} connections"

    @property
    def shared(self) -> tuple[Database, Bus, Clock, Telemetry, Requests]:
        """What a context begins with."""
        return self.database, self.bus, self.clock, self.telemetry, self.requests

    async def start(self) -> None:
        """Nothing: each connection is opened when first used."""

    async def stop(self) -> None:
        """Closes every client, channel and connection."""
        for close in self.closers:
            await close()
        for channel in self._channels.values():
            await channel.close()
        await self.database.close()

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to another service."""
        if service not in self._channels:
            address: str = getattr(self.settings, f"{service}_address")
            self._channels[service] = rpc.channel(
                address, caller=self.schema, key=self.settings.key, telemetry=self.telemetry
            )
        return self._channels[service]

    def channel_if_known(self, service: str) -> grpc.aio.Channel | None:
        """The channel to another service; None where its address is not set."""
        return self.channel(service) if getattr(self.settings, f"{service}_address") else None

    def consumer(self, reactions: Mapping[str, Reaction], ctx: Any) -> Consumer:
        """The consumer of the service's reactions."""
        return Consumer(self.bus, self.database, self.schema, reactions, ctx, self.telemetry)

    def errands(self, runners: Mapping[str, Runner], ctx: Any, workers: int = 8) -> Errands:
        """Workers for errands of the service."""
        return Errands(self.database, self.schema, runners, ctx, self.telemetry, workers)

    def sweeps(self, sweeps: Mapping[str, tuple[float, Sweep[Any]]], ctx: Any) -> Sweeps[Any]:
        """The service's sweeps."""
        return Sweeps(self.schema, ctx, sweeps, self.clock)

    def server(self, servicers: Sequence[rpc.Servicer], kind: Callable[..., S], **options: Any) -> S:
        """A gRPC server that is ready when database and bus are; `options` are those of its class."""
        options = {"key": self.settings.key, "deep_check": self._check, "telemetry": self.telemetry, **options}
        return kind(self.schema, self.settings.listen, servicers, **options)

    def service(self, ctx: Any, server: rpc.Server, parts: Sequence[Any], before: Sequence[Any] = ()) -> Service:
        """The service, not started; `before` are parts that start before the bus."""
        # Ids carry the time of the machine, whatever clock the service goes by.
        partitions = Partitions(self.database, SystemClock())
        return Service(self.schema, ctx, [self, *before, self.bus, partitions, *parts, server], server)

    async def _check(self) -> None:
        answers = await asyncio.gather(self.database.ping(), self.bus.ping(), return_exceptions=True)
        wrong = [answer for answer in answers if isinstance(answer, BaseException)]
        if wrong:
            # Whoever reads this wants to know of both at once.
            raise Unavailable("; ".join(str(answer) for answer in wrong), reason="NOT_READY") from wrong[0]


def assemble(
    schema: str,
    settings: ServiceSettings,
    clock: Clock,
    *,
    pool_size: int = 8,
    session: Mapping[str, str] | None = None,
) -> Assembly:
    """The common parts of a service. `session` are settings of every database connection."""
    telemetry = configure(schema, settings)
    database = Database(
        settings.database_url,
        clock=clock,
        pool_size=pool_size,
        application_name=schema,
        session=session,
        pooled=settings.database_pooler == "transaction",
    )
    bus = Bus(settings.nats_url, database, schema, clock)
    requests = Requests(database, schema, settings.key, settings.request_retention)
    return Assembly(database, bus, clock, telemetry, requests, schema, settings)
