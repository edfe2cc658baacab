"""procrastinate as a peer: jobs that do nothing, an asynchronous worker with concurrency, finished jobs are kept."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector

# It takes one job from the database at a time, whatever the concurrency; more tasks only wait.
CONCURRENCY = 20
CHUNK = 2000


def application(url: str) -> App:
    """The app of both sides."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=2, max_size=CONCURRENCY))

    @app.task(name="bench")
    async def work() -> None:
        global _done  # noqa: PLW0603 - one run to a process
        _done += 1

    return app


_done = 0


async def fill(url: str, jobs: int) -> dict[str, Any]:
    """Makes its tables and puts the jobs in."""
    app = application(url)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, jobs, CHUNK):
            empty: list[dict[str, Any]] = [{} for _ in range(min(CHUNK, jobs - first))]
            await app.tasks["bench"].batch_defer_async(*empty)
    return {"jobs": jobs}


async def drain(url: str, seconds: float) -> dict[str, Any]:
    """Works until nothing waits, at most so long."""
    app = application(url)
    async with app.open_async():
        began = time.time()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=CONCURRENCY, wait=False, install_signal_handlers=False)
        )
        await asyncio.wait({worker}, timeout=seconds)
        done, ended = _done, time.time()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return {"done": done, "began": began, "ended": ended}


async def main() -> None:
    """Takes the order, runs it, prints the answer."""
    logging.disable(logging.WARNING)
    order = json.loads(sys.stdin.readline())
    answer = await (
        fill(order["url"], order["jobs"]) if order["role"] == "fill" else drain(order["url"], order["seconds"])
    )
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
