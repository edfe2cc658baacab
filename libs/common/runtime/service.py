"""A service put together, and the process around one.

`main` is all a `__main__.py` needs: it reads the settings, builds the service in the running loop, serves metrics
beside it and ends with 0 after a clean stop, 1 when the service could not start, 2 when its settings are wrong.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from starlette.applications import Starlette

from libs.common.clock import Clock, SystemClock
from libs.common.errors import Problem
from libs.common.http import HttpServer, health_routes
from libs.common.rpc import Server
from libs.common.runtime.parts import run, start_parts, stop_parts
from libs.common.runtime.process_metrics import ProcessMetrics
from libs.common.settings import BadSettings, ServiceSettings, load
from libs.common.telemetry import Telemetry

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

CANNOT_START = 1
BAD_SETTINGS = 2

_log = structlog.get_logger(__name__)


@dataclass
class Service:
    """One service: its doors, its parts in the order they start, and its gRPC server (the last part)."""

    name: str
    ctx: Any
    parts: Sequence[Any]  # each a Part; a list of parts of different classes has no better type by itself
    server: Server
    telemetry: Telemetry | None = None

    def __post_init__(self) -> None:
        """The server starts last and stops first, whether or not it was listed; telemetry is the doors' own."""
        self.parts = [*(part for part in self.parts if part is not self.server), self.server]
        self.telemetry = self.telemetry or getattr(self.ctx, "telemetry", None)

    async def start(self) -> None:
        """Start every part; when one fails, what was started is stopped and the failure raised."""
        await start_parts(self.parts, self.telemetry)

    async def stop(self) -> None:
        """Tell clients to go elsewhere, then stop every part in reverse."""
        await self.server.drain()
        await stop_parts(self.parts)
        if self.telemetry:
            await asyncio.to_thread(self.telemetry.close)


def main(build: Callable[[SettingsT, Clock], Service], kind: type[SettingsT]) -> int:
    """Runs a service, with settings of a kind, until a signal; returns the exit status."""
    try:
        settings = load(kind)
    except BadSettings as problem:
        print(problem.message, file=sys.stderr)  # noqa: T201 (for the person at the terminal; logs come later)
        return BAD_SETTINGS
    try:
        asyncio.run(_live(build, settings))
    except Problem as problem:
        _log.error("cannot start", why=problem.message, reason=problem.reason)
        return CANNOT_START
    except KeyboardInterrupt:
        return 130
    return 0


async def _live(build: Callable[[SettingsT, Clock], Service], settings: SettingsT) -> None:
    service = build(settings, SystemClock())
    # Before the server, so that figures are there as soon as it serves.
    parts = [
        *service.parts[:-1],
        ProcessMetrics(service.name, service.server, service.parts, service.ctx),
        service.server,
    ]
    if not any(getattr(part, "serves_metrics", False) for part in parts):
        parts.insert(0, HttpServer(Starlette(routes=health_routes(service.server)), settings.http_listen))
    await run(parts, telemetry=service.telemetry)
