"""What the three doors of ops are given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import grpc

from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.settings import ServiceSettings, variable
from libs.common.telemetry import Telemetry
from services.ops.channels.post import Post

if TYPE_CHECKING:
    from services.ops.errands.audit_seal import Seal

SCHEMA = "ops"


class Settings(ServiceSettings):
    """The variables of ops."""

    audit_key: str = variable(
        "OPS_AUDIT_KEY",
        default="",
        rule="the private Ed25519 key that signs the audit log, 64 hexadecimal digits; empty to make and keep one",
        remedy="make one with: openssl rand -hex 32; give every replica the same",
        secret=True,
        pattern="^([0-9a-fA-F]{64})?$",
    )


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
            async with asyncio.timeout(timeout):
                await self._rung.wait()


@dataclass
class ServiceContext:
    """The service's own means; siblings are asked only for what the overview shows of them."""

    database: Database
    bus: Bus
    clock: Clock
    settings: ServiceSettings
    telemetry: Telemetry
    post: Post
    # Signs the audit log's checkpoints.
    seal: Seal
    placed: Bell = field(default_factory=Bell)
    # When facts were last looked for so many seconds behind the audit log's end.
    looked_back: dict[float, datetime] = field(default_factory=dict)
    # Has the sweep that places facts run at once.
    hurry: Callable[[], None] = field(default=lambda: None)
    # The way to a service, None where no address is known.
    sibling: Callable[[str], grpc.aio.Channel | None] = field(default=lambda _name: None)
