"""queue put together: nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common import rpc
from libs.common import settings as environment
from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database
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


def build(settings: ServiceSettings, clock: Clock) -> Service:
    """queue, not started."""
    telemetry = configure(NAME, settings)
    database = Database(settings.database_url, clock=clock, application_name=NAME)
    bus = Bus(settings.nats_url, database, NAME, clock)
    doors = Doors(database=database, bus=bus, clock=clock, settings=settings, telemetry=telemetry)

    async def check() -> None:
        await database.ping()
        await bus.ping()

    add = queue_pb2_grpc.add_QueueServiceServicer_to_server
    server = rpc.Server(
        NAME,
        settings.listen,
        [(add, QueueHandlers(doors), "prunella.v1.QueueService")],
        key=settings.key,
        deep_check=check,
        telemetry=telemetry,
    )
    return Service(NAME, doors, [bus, server], server)
