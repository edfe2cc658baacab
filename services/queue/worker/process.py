"""The worker put together: nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from libs.common import access, rpc
from libs.common.clock import SystemClock
from libs.common.http import HttpServer
from libs.common.runtime import run
from libs.common.runtime.parts import STOP_SECONDS, start_parts, stop_parts
from libs.common.telemetry import configure, metrics_app
from prunella.v1 import queue_pb2_grpc
from services.queue.worker.config import Config
from services.queue.worker.settings import WorkerSettings
from services.queue.worker.tool_servers import ToolServers
from services.queue.worker.worker_loop import Worker


@dataclass
class Connection:
    """The channel to the queue: opened when first used, closed after everything else."""

    channel: grpc.aio.Channel
    name: str = "channel to the queue"

    async def start(self) -> None:
        """Nothing: it is opened when first used."""

    async def stop(self) -> None:
        """Closes it."""
        await self.channel.close()


async def run_worker(config: Config, settings: WorkerSettings, *, once: bool = False) -> None:
    """Runs the worker until a signal, or once. Raises Problem."""
    telemetry = configure(access.WORKER, settings)
    channel = rpc.channel(settings.queue_address, caller=access.WORKER, key=settings.key, telemetry=telemetry)
    queue: Any = queue_pb2_grpc.QueueServiceStub(channel)
    servers = ToolServers(config, SystemClock())
    worker = Worker(config, servers, queue)
    parts: list[Any] = [Connection(channel), servers]
    if settings.http_listen:
        parts.insert(0, HttpServer(metrics_app(), settings.http_listen))
    if not once:
        await run([*parts, worker], telemetry=telemetry, stop_seconds=config.grace_seconds + STOP_SECONDS)
        return
    try:
        await start_parts(parts, telemetry)
        await worker.run_once()
    finally:
        await stop_parts(parts)
        telemetry.close()
