"""From the first bad beat to the command on the agent's stream, and how many attempts a plane carries out at once.

Both come from timestamps in the plane's own tables. Staging is off for the first and cached for the second; agents are
instant, in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from deploy.demo import releases
from deploy.local import keys
from deploy.local.plane import Plane
from deploy.local.testing import FakeAgent
from libs.common import rpc
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from prunella_agent.credential import Credential
from prunella_agent.session import open_channel
from tests.bench.backing import ROOT, child, percentile, plane, secret, seed

SINGLE = 30
# Seconds between two faults. Idle: the healing before is over. Under load: they overlap.
EXCLUSIVE, OVERLAPPING = 2.0, 0.25
LOADED = 60
TOGETHER = 100
BUDGET = 200
BAD = 12  # of 20 webhooks: 0.6, as in the worked example
ENVIRONMENT = {
    "DECIDER_PLAYBOOK": str(ROOT / "deploy/demo/playbook.toml"),
    "INGEST_BEAT_SECONDS": "30",
    # Every agent here falls ill on purpose; that is no storm.
    "INGEST_STORM_LEAST": "1000000",
}
WRITTEN = """
SELECT extract(epoch FROM c.first_write_time - i.first_bad_beat_time)::float8 AS delay
FROM ingest.commands c JOIN ingest.incidents i ON i.id::text = c.incident
WHERE c.plugin = ANY($1::uuid[]) AND c.kind = 1 AND c.first_write_time IS NOT NULL
"""
ENDS = """
SELECT min(f.time) FILTER (WHERE f.fact = 'decision_made') AS first,
    max(f.time) FILTER (WHERE f.fact = 'attempt_succeeded') AS last,
    count(*) FILTER (WHERE f.fact = 'attempt_succeeded') AS healed
FROM bus.facts f WHERE f.plugin = ANY($1::text[])
"""


async def until(look: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Polls until `look` says yes. Raises RuntimeError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.1)


async def prepare(running: Plane) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
    """Publishes the demo's mended release."""
    channel = rpc.channel(running.addresses["patcher"], caller="operator", key=running.key)
    patcher: patcher_pb2_grpc.PatcherServiceAsyncStub = patcher_pb2_grpc.PatcherServiceStub(channel)
    private = [key.private_bytes_raw() for key in keys.release_keys(running.state)]
    await releases.publish(patcher, private, ("1.2.0", "1.2.3"))
    return patcher


async def stage(patcher: patcher_pb2_grpc.PatcherServiceAsyncStub, required: bool) -> None:
    """Switches staging on or off, and lets as many attempts fly, unasked, as there are faults."""
    wanted = patcher_pb2.Policy(require_staging=required, max_in_flight=BUDGET, max_in_flight_percentage=100.0)
    request = patcher_pb2.UpdatePolicyRequest(policy=wanted, reason="a measurement", request_id=f"stage-{required}")
    request.update_mask.paths.extend(
        ["require_staging", "max_in_flight", "max_in_flight_percentage", "require_multisig_for_high_impact"]
    )
    await patcher.UpdatePolicy(request, timeout=10)


async def connect(running: Plane, count: int) -> list[FakeAgent]:
    """Healthy agents, connected, with a window behind them."""
    ids = await seed(running.database_url, count, package="relay")
    channel = open_channel(running.addresses["ingest"])
    place = running.addresses["ingest"]
    agents = [FakeAgent(Credential(plugin, secret(plugin), ()), place, channel) for plugin in ids]
    for agent in agents:
        agent.session.start()

    async def connected() -> bool:
        return all(agent.session.connected for agent in agents)

    await until(connected, 60, "every agent connected")
    for agent in agents:
        agent.beat()

    async def heard() -> bool:
        return all(agent.session.pending_beats == 0 for agent in agents)

    await until(heard, 30, "every first beat acknowledged")
    return agents


async def delays(running: Plane, agents: list[FakeAgent], pause: float) -> dict[str, Any]:
    """Breaks one agent after the other and reads when its command was written."""
    ids = [agent.plugin for agent in agents]
    connection = await asyncpg.connect(running.database_url)
    try:
        for agent in agents:
            agent.beat(failed=BAD)
            await asyncio.sleep(pause)

        async def written() -> bool:
            return len(await connection.fetch(WRITTEN, ids)) >= len(agents)

        await until(written, 60, "every command written")
        found = [float(row["delay"]) * 1000 for row in await connection.fetch(WRITTEN, ids)]
    finally:
        await connection.close()
    return {
        "incidents": len(found),
        "p50_ms": round(percentile(found, 0.5), 1),
        "p99_ms": round(percentile(found, 0.99), 1),
    }


async def together(running: Plane, agents: list[FakeAgent]) -> dict[str, Any]:
    """Breaks all at once; attempts per second from the first decision to the last success."""
    ids = [agent.plugin for agent in agents]
    connection = await asyncpg.connect(running.database_url)
    try:
        for agent in agents:
            agent.beat(failed=BAD)

        async def healed() -> bool:
            return bool((await connection.fetchrow(ENDS, ids))["healed"] >= len(agents))

        await until(healed, 120, "every attempt succeeded")
        row = await connection.fetchrow(ENDS, ids)
    finally:
        await connection.close()
    seconds = (row["last"] - row["first"]).total_seconds()
    return {"attempts": len(agents), "in_flight_budget": BUDGET, "attempts_per_second": round(len(agents) / seconds, 1)}


async def measure() -> dict[str, Any]:
    """All three."""
    async with plane(ENVIRONMENT) as running:
        patcher = await prepare(running)
        await stage(patcher, False)
        idle = await delays(running, await connect(running, SINGLE), EXCLUSIVE)
        many = await seed(running.database_url, 3000)
        order = {"shape": "paced", "plugins": many, "seconds": 60, "workers": 30, "window": 50, "first": 1}
        load = await child("tests.bench.load", {**order, "address": running.addresses["ingest"]})
        try:
            loaded = await delays(running, await connect(running, LOADED), OVERLAPPING)
        finally:
            with contextlib.suppress(ProcessLookupError):
                load.kill()
            await load.wait()
        await stage(patcher, True)
        await together(running, await connect(running, 1))
        actuation = await together(running, await connect(running, TOGETHER))
    return {
        "bad_beat_to_command_written": {
            "idle": idle
            | {"target_p50_ms": 25, "target_p99_ms": 100, "reached": idle["p50_ms"] <= 25 and idle["p99_ms"] <= 100},
            "under_1500_beats_per_second": loaded | {"target_p99_ms": 250, "reached": loaded["p99_ms"] <= 250},
        },
        "actuation": actuation | {"target_attempts_per_second": 50, "reached": actuation["attempts_per_second"] >= 50},
    }
