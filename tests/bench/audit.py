"""The audit log: how fast facts are sequenced, what a proof takes in a large log, and what it all costs who writes.

The plane's database and ops are real. Facts are first written while ops is stopped; once it runs, it has all of them to
sequence, beside everything else it does with them. The sequencer is also run alone, in this process. What writers pay
is measured at the same pace of transactions with ops stopped and running, in turns; nothing of the log is in their way,
so what is left is that both share the machine.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import asyncpg

from deploy.local.plane import Plane
from libs.common import rpc
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.facts import fact
from libs.common.names import new_id
from prunella.v1 import audit_pb2
from prunella.v1.events_pb2 import PluginHealthChanged
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from services.ops.audit import merkle
from services.ops.context import ServiceContext
from services.ops.sweeps.audit import log_facts
from tests.bench.backing import percentile, plane

COUNT = 60_000
PART = 2_000
PROOFS = 200
PACE, SECONDS, ROUNDS = 200, 4.0, 3
TARGETS = {"sequenced_per_second": 10_000.0}
SIZE = "SELECT size FROM ops.audit_log"


def told() -> Any:
    changed = PluginHealthChanged(**{"from": "healthy", "to": "unhealthy"}, release="1.2.0")  # type: ignore[arg-type]
    return fact("ingest", changed, plugin=new_id(), merchant="bench", reason="3 of 5 beats were missed")


async def write(database: Database, count: int) -> None:
    """Facts in transactions of PART."""

    async def work(tx: Any) -> None:
        for _ in range(PART):
            tx.record(told())

    for _ in range(count // PART):
        await database.transaction(work)


async def alone(running: Plane) -> float:
    """Entries per second of the sequencer by itself."""
    database = Database(running.service_database_url("ops"), clock=SystemClock(), pool_size=1)
    try:
        ctx = cast("ServiceContext", SimpleNamespace(database=database, last_look_back={}))
        began = time.perf_counter()
        done = await log_facts(ctx, datetime.now(UTC))
        return done / (time.perf_counter() - began)
    finally:
        await database.close()


async def beside_the_rest(running: Plane, owner: asyncpg.Connection, target: int) -> float:
    """Entries per second in the running service, from its first look to the last entry."""
    before = first = await owner.fetchval(SIZE)
    await running.release("ops")
    began = time.perf_counter()
    while (size := await owner.fetchval(SIZE)) < target:
        if size == before:
            began = time.perf_counter()
            first = size
        await asyncio.sleep(0.01)
    return float((size - first) / (time.perf_counter() - began))


async def proofs(running: Plane, size: int) -> dict[str, Any]:
    """Proofs of inclusion over gRPC, each verified."""
    channel = rpc.channel(running.addresses["ops"], caller="operator", key=running.key)
    took = []
    try:
        ops: Any = OpsServiceStub(channel)
        for turn in range(PROOFS):
            index = turn * (size // PROOFS)
            began = time.perf_counter()
            found = await ops.ProveAudit(audit_pb2.ProveAuditRequest(index=index, size=size), timeout=10)
            took.append((time.perf_counter() - began) * 1000)
            leaf = merkle.leaf_hash(found.entry.entry)
            assert merkle.included(leaf, index, size, found.hashes, found.root)
    finally:
        await channel.close()
    return {"proof_p50_ms": round(percentile(took, 0.5), 1), "proof_p95_ms": round(percentile(took, 0.95), 1)}


async def paced(database: Database) -> list[float]:
    """Milliseconds of transactions that tell a fact, PACE a second for SECONDS."""
    took: list[float] = []

    async def one(tx: Any) -> None:
        tx.record(told())

    began = time.perf_counter()
    for number in range(int(PACE * SECONDS)):
        await asyncio.sleep(max(0.0, began + number / PACE - time.perf_counter()))
        start = time.perf_counter()
        await database.transaction(one)
        took.append((time.perf_counter() - start) * 1000)
    return took


async def writers(running: Plane, database: Database) -> dict[str, Any]:
    """The same writes with ops stopped and running, in turns."""
    without: list[float] = []
    beside: list[float] = []
    for _ in range(ROUNDS):
        await running.hold("ops")
        without += await paced(database)
        await running.release("ops")
        beside += await paced(database)
    found = {
        f"{name}_p{int(share * 100)}_ms": round(percentile(values, share), 2)
        for name, values in (("stopped", without), ("running", beside))
        for share in (0.5, 0.95)
    }
    return {**found, "p50_ratio": round(percentile(beside, 0.5) / percentile(without, 0.5), 2)}


async def measure() -> dict[str, Any]:
    """Rates, proofs and what writers pay."""
    async with plane({}, services=["ops"]) as running:
        owner = await asyncpg.connect(running.database_url)
        database = Database(running.service_database_url("ingest"), clock=SystemClock(), pool_size=2)
        try:
            await running.hold("ops")
            await write(database, COUNT)
            by_itself = await alone(running)
            await write(database, COUNT)
            with_the_rest = await beside_the_rest(running, owner, 2 * COUNT)
            proven = await proofs(running, 2 * COUNT)
            paid = await writers(running, database)
        finally:
            await database.close()
            await owner.close()
    return {
        "entries": 2 * COUNT,
        "sequenced_per_second": round(by_itself),
        "sequenced_per_second_beside_all_of_ops": round(with_the_rest),
        **proven,
        "writers": paid,
        "targets": TARGETS,
    }
