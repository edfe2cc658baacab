"""Asks each service every few seconds whether it serves: the plane's uptime comes from these probes and nothing else.

Rule: what was not asked is not counted. A service that does not answer in time is unreachable; ops asks itself too,
over the same way as anybody else. Several replicas probe side by side, each for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.common.cancellation import cancel_and_wait
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.errors import Problem
from services.ops.store import uptime_probes

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds
TIMEOUT = 2.0  # seconds a service has to answer
RETENTION = timedelta(days=400)
BATCH = 5000
DELETE_EVERY = 720  # rounds


class UptimeProbes:
    """Probes the named services as long as it runs; `channel` is the way to one, None where no address is known."""

    name = "uptime probes"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        services: tuple[str, ...],
        channel: Callable[[str], grpc.aio.Channel | None],
    ) -> None:
        self.database = database
        self.clock = clock
        self.services = services
        self.channel = channel
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to probe."""
        self._loop = asyncio.create_task(self._work(), name="ops uptime probes")

    async def stop(self) -> None:
        """Ends it."""
        if self._loop:
            await cancel_and_wait([self._loop])

    async def run_once(self) -> Mapping[str, str]:
        """One round: each service's health, stored."""
        known = {name: channel for name in self.services if (channel := self.channel(name)) is not None}
        answers = await asyncio.gather(*(_ask(channel) for channel in known.values()))
        health = dict(zip(known, answers, strict=True))
        if health:
            await self.database.transaction(lambda tx: uptime_probes.count(tx, health))
        return health

    async def _work(self) -> None:
        rounds = 0
        while True:
            try:
                await self.run_once()
                if rounds % DELETE_EVERY == 0:
                    await self._delete_old()
            except (TimeoutError, Problem, OSError) as error:
                # A gap in the probes is shown as a gap.
                log.debug("probes were not stored: %s", error)
            except Exception:
                log.exception("uptime probes failed")
            rounds += 1
            await asyncio.sleep(EVERY)

    async def _delete_old(self) -> None:
        before = self.clock.now() - RETENTION
        while await self.database.transaction(lambda tx: uptime_probes.delete_before(tx, before, BATCH)):
            pass


async def _ask(channel: grpc.aio.Channel) -> str:
    """`serving`, `not_serving` or `unreachable`."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        async with asyncio.timeout(TIMEOUT * 2):
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except (Problem, TimeoutError, grpc.aio.AioRpcError):
        return "unreachable"
    return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not_serving"
