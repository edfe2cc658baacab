"""Asks services how they are, over the standard health protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

CHECK_SECONDS = 2.0
LOOK_SECONDS = 0.05


async def serving(address: str) -> bool:
    """Whether the service at host:port says SERVING now."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False


async def until_serving(address: str) -> None:
    """Returns when the service says SERVING; the caller sets the deadline."""
    while not await serving(address):  # noqa: ASYNC110 - another process cannot set an event of ours
        await asyncio.sleep(LOOK_SECONDS)


async def table(addresses: Mapping[str, str]) -> dict[str, bool]:
    """Name → whether it serves now, asked all at once."""
    answers = await asyncio.gather(*(serving(address) for address in addresses.values()))
    return dict(zip(addresses, answers, strict=True))
