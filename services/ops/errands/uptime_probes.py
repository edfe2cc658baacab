"""Asks each service every few seconds whether it serves: the plane's uptime comes from these probes and nothing else.

Rule: what was not asked is not counted. A service that does not answer in time is unreachable; ops asks itself too,
over the same way as anybody else. Several replicas probe side by side, each for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.common.database import Database
from libs.common.errors import Problem
from libs.common.runtime.loops import Loop
from services.ops.store import uptime_probes

EVERY = 5.0  # seconds
TIMEOUT = 2.0  # seconds a service has to answer


class UptimeProbes:
    """Probes the named services as long as it runs; `channel` is the way to one, None where no address is known."""

    def __init__(
        self, database: Database, services: tuple[str, ...], channel: Callable[[str], grpc.aio.Channel | None]
    ) -> None:
        self.name = "uptime probes"
        self._database = database
        self._services = services
        self._channel = channel
        # A round that fails is a gap in the probes, and shown as one.
        self._loop = Loop(self.name, self.run_once, every=EVERY)
        self.start, self.stop = self._loop.start, self._loop.stop

    async def run_once(self) -> Mapping[str, str]:
        """One round: each service's health, stored."""
        known = {name: channel for name in self._services if (channel := self._channel(name)) is not None}
        answers = await asyncio.gather(*(_ask(channel) for channel in known.values()))
        health = dict(zip(known, answers, strict=True))
        if health:
            await self._database.transaction(lambda tx: uptime_probes.count(tx, health))
        return health


async def _ask(channel: grpc.aio.Channel) -> str:
    """`serving`, `not_serving` or `unreachable`."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        async with asyncio.timeout(TIMEOUT * 2):
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except (Problem, TimeoutError, grpc.aio.AioRpcError):
        return "unreachable"
    return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not_serving"
