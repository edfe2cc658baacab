"""What the three doors of ops are given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Telemetry


class Bell:
    """Wakes everybody who waits at the moment it rings; a hint between watchers of one process."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes who waits."""
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def wait(self, timeout: float) -> None:
        """Waits for the next ring, or `timeout` seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rung.wait(), timeout)


@dataclass
class Doors:
    """The service's own means; siblings are asked only for what the overview shows of them."""

    database: Database
    bus: Bus
    clock: Clock
    settings: ServiceSettings
    telemetry: Telemetry
    placed: Bell = field(default_factory=Bell)
    # Has the sweep that places facts run at once.
    hurry: Callable[[], None] = field(default=lambda: None)
    # The way to a service, None where no address is known.
    sibling: Callable[[str], grpc.aio.Channel | None] = field(default=lambda _name: None)
