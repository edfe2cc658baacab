"""queue put together: nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errors import Unavailable
from libs.common.runtime import Service
from libs.common.settings import ServiceSettings
from libs.common.telemetry import configure
from prunella.v1 import queue_pb2_grpc
from services.queue.doors import Doors
from services.queue.handlers import QueueHandlers

NAME = "queue"


def load(environ: Mapping[str, str] | None = None) -> ServiceSettings:
    """The settings of queue. Raises BadSettings listing everything that is wrong."""
    return environment.load(ServiceSettings, environ)


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


def build(settings: ServiceSettings, clock: Clock) -> Service:
    """queue, not started."""
    telemetry = configure(NAME, settings)
    database = Database(settings.database_url, clock=clock, application_name=NAME)
    bus = Bus(settings.nats_url, database, NAME, clock)
    doors = Doors(database=database, bus=bus, clock=clock, settings=settings, telemetry=telemetry)

    async def check() -> None:
        answers = await asyncio.gather(database.ping(), bus.ping(), return_exceptions=True)
        wrong = [answer for answer in answers if isinstance(answer, BaseException)]
        if wrong:
            # Whoever reads this wants to know of both at once.
            raise Unavailable("; ".join(str(answer) for answer in wrong), reason="NOT_READY") from wrong[0]

    add = queue_pb2_grpc.add_QueueServiceServicer_to_server
    server = rpc.Server(
        NAME,
        settings.listen,
        [(add, QueueHandlers(doors), "prunella.v1.QueueService")],
        key=settings.key,
        deep_check=check,
        telemetry=telemetry,
    )
    return Service(NAME, doors, [Connections(database), bus, server], server)
