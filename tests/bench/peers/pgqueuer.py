"""pgqueuer as a peer: jobs that do nothing, in batches, asyncpg and uvloop, workers in drain mode."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import Queries, QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.types import QueueExecutionMode

ENTRYPOINT = "bench"
# Larger batches were not faster on two cores, smaller ones slower.
BATCH = 500
CHUNK = 5000


async def fill(url: str, jobs: int) -> dict[str, Any]:
    """Makes its tables and puts the jobs in."""
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for first in range(0, jobs, CHUNK):
        count = min(CHUNK, jobs - first)
        await queries.enqueue([ENTRYPOINT] * count, [b"{}"] * count, [0] * count)
    await connection.execute("VACUUM ANALYZE pgqueuer")
    await connection.close()
    return {"jobs": jobs}


async def drain(url: str, seconds: float) -> dict[str, Any]:
    """Works until nothing waits, at most so long."""
    connection = await asyncpg.connect(url)
    manager = QueueManager(Queries(AsyncpgDriver(connection)))
    done = 0

    @manager.entrypoint(ENTRYPOINT)
    async def work(job: Any) -> None:
        nonlocal done
        done += 1

    asyncio.get_running_loop().call_later(seconds, manager.shutdown.set)
    began = time.time()
    await manager.run(batch_size=BATCH, mode=QueueExecutionMode.drain, dequeue_timeout=timedelta(seconds=1))
    ended = time.time()
    await connection.close()
    return {"done": done, "began": began, "ended": ended}


async def main() -> None:
    """Takes the order, runs it, prints the answer."""
    order = json.loads(sys.stdin.readline())
    answer = await (
        fill(order["url"], order["jobs"]) if order["role"] == "fill" else drain(order["url"], order["seconds"])
    )
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
