"""Memory of the ingest process per connected agent: its size with many sessions, less its size without any."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc
from tests.bench.backing import answer, child, memory, plane, secret, seed

AGENTS = 10_000
PROCESSES = 4
TARGET_KB = 60


async def measure(agents: int = AGENTS) -> dict[str, Any]:
    """Connects the agents, each on a connection of its own, from a few processes."""
    async with plane({"INGEST_BEAT_SECONDS": "300"}, services=("ingest",)) as running:
        ids = await seed(running.database_url, agents + PROCESSES)
        address = running.addresses["ingest"]
        pid = running.watches["ingest"].pid
        # The first few sessions load what every session needs.
        warm = [await child("tests.bench.connections", {"address": address, "plugins": ids[agents:]})]
        holders = []
        try:
            await answer(warm[0])
            before = memory(pid)
            share = agents // PROCESSES
            for number in range(PROCESSES):
                own = ids[number * share : (number + 1) * share]
                holders.append(await child("tests.bench.connections", {"address": address, "plugins": own}))
            connected = sum([(await answer(holder, 600))["connected"] for holder in holders])
            each = (memory(pid) - before) / connected / 1024
        finally:
            for holder in [*warm, *holders]:
                with contextlib.suppress(ProcessLookupError):
                    holder.kill()
                await holder.wait()
    return {
        "connections": connected, "kb_per_agent": round(each, 1), "target_kb": TARGET_KB, "reached": each <= TARGET_KB,
    }  # fmt: skip


async def hold() -> None:
    """The child: one connection and one session per plugin, until it is killed."""
    order = json.loads(sys.stdin.readline())
    limit = asyncio.Semaphore(32)
    calls = []

    async def connect(plugin: str) -> None:
        async with limit:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
            channel = grpc.aio.insecure_channel(order["address"], options=options)
            metadata = (("authorization", f"Plugin {plugin}:{secret(plugin)}"),)
            call = agent_pb2_grpc.AgentGatewayStub(channel).Connect(metadata=metadata)
            await call.write(
                pb.ConnectRequest(hello=pb.Hello(boot_id=f"boot-{plugin}", release="1.0.0", package="bench"))
            )
            await asyncio.wait_for(call.read(), 60)
            calls.append((channel, call))

    await asyncio.gather(*(connect(plugin) for plugin in order["plugins"]))
    print(json.dumps({"connected": len(calls)}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold())
