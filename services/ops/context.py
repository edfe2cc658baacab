"""The context of the three doors of ops: database, clock, clients, settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import grpc

from libs.common.runtime.assembly import SharedContext
from libs.common.settings import ServiceSettings, variable
from services.ops.channels.delivery import ChannelSender
from services.ops.errands.signing_key import SigningKey

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


class Signal:
    """Wakes everybody who waits for it; a hint between watchers of one process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        """Wakes who waits."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, timeout: float) -> None:
        """Waits for the next signal, or `timeout` seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()


@dataclass
class ServiceContext(SharedContext):
    """The service's own means; siblings are asked only for what the overview shows of them."""

    settings: ServiceSettings
    sender: ChannelSender
    # Signs the audit log's checkpoints.
    signing_key: SigningKey
    placed: Signal = field(default_factory=Signal)
    # When facts were last looked for so many seconds behind the audit log's end.
    last_look_back: dict[float, datetime] = field(default_factory=dict)
    # Has the sweep that places facts run at once.
    place_soon: Callable[[], None] = field(default=lambda: None)
    # The way to a service, None where no address is known.
    sibling: Callable[[str], grpc.aio.Channel | None] = field(default=lambda _name: None)
