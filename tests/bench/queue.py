"""The resolution queue over gRPC: one task, batches beside other queues, a million rows, and errors that are told.

Every ratio is taken in this run, on the same server and the same rows: the claim beside the least a claim can be (one
statement by hand), batches beside pgqueuer, procrastinate and graphile-worker. Ours is fenced, told to the bus, and
written into history; theirs have no such duty. At a million rows the plans of the hot statements are looked at too.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import asyncpg

from deploy.local.plane import Plane
from libs.common.clock import SystemClock
from libs.common.database import Database
from services.queue.service import PLANNER
from tests.bench import queue_peers, queue_rows
from tests.bench.backing import plane, run
from tests.bench.queue_load import spread
from tests.service.test_queue_plans import HOT, LARGE, plan

JOBS = 100_000
MILLION = 1_000_000
TURNS = 1000
SETS = 8
REPORTS = 20_000
# What a worker of this queue should ask for: as much as it may, a second call under way while the first is answered.
BATCH, WORKERS = 1000, 2
ROUNDS = 2
STATUS = "SELECT state, count, mean_priority, oldest_create_time, newest_create_time FROM queue.task_states"
TARGETS = {
    "claim_to_raw": 2.0, "claim_at_a_million_p99_ms": 4.1, "to_graphile_worker": 1.5, "to_pgqueuer": 3.0,
    "status_at_a_million_p50_ms": 0.2, "stats_at_a_million_p50_ms": 2.3,
}  # fmt: skip


async def load(running: Plane, shape: str, **order: Any) -> dict[str, Any]:
    """One shape of load, from a process of its own."""
    whole = {"address": running.addresses["queue"], "key": running.key, "database": running.database_url}
    return await run("tests.bench.queue_load", {**whole, "shape": shape, **order})


async def one_task(running: Plane, rows: int, sets: int) -> dict[str, Any]:
    """Claim and complete, one at a time, and the raw claim of the same rows in turns."""
    await queue_rows.fill(running.database_url, rows, sets=sets)
    await folded(running)
    found = await load(running, "single", count=TURNS, tools=queue_rows.tools(sets))
    found["claim_to_raw"] = round(found["claim"]["p50_ms"] / found["raw_claim"]["p50_ms"], 2)
    return {"rows": rows, "tool_sets": sets, **found}


async def throughput(running: Plane, jobs: int) -> dict[str, Any]:
    """Ours in batches, then every peer; the better of some rounds, as theirs is the better of their two."""
    rounds = []
    for _ in range(ROUNDS):
        await queue_rows.fill(running.database_url, jobs)
        await folded(running)
        rounds.append(await load(running, "drain", batch=BATCH, workers=WORKERS, tools=queue_rows.tools(1)))
        if rounds[-1]["tasks"] != jobs or rounds[-1]["refused"]:
            raise RuntimeError(f"of {jobs} tasks {rounds[-1]} were done")
    ours = max(one["per_second"] for one in rounds)
    peers = await queue_peers.compare(running.database_url, jobs)
    had = {name: peer for name, peer in peers.items() if "per_second" in peer}
    ratios = {f"to_{name}": round(ours / peer["per_second"], 2) for name, peer in had.items()}
    ratios |= {f"to_one_{name}": round(ours / peer["by_processes"]["1"], 2) for name, peer in had.items()}
    ours_told = {
        "per_second": ours,
        "rounds": rounds,
        "settings": f"{WORKERS} workers, batches of {BATCH}, details omitted",
    }
    return {"jobs": jobs, "prunella": ours_told, **peers, "ratios": ratios}


async def at_a_million(running: Plane, rows: int) -> dict[str, Any]:
    """Claims, figures, the status view and the plans when the queue is full."""
    began = time.monotonic()
    found = await one_task(running, rows, SETS)
    found["filled_and_claimed_seconds"] = round(time.monotonic() - began, 1)
    found["stats"] = await load(running, "stats", count=TURNS, caller="operator")
    found["status_view"] = await status(running)
    found["plans_wrong"] = await plans_wrong(running)
    return found


async def status(running: Plane) -> dict[str, float]:
    """The status view, as a person's SQL reads it."""
    connection = await asyncpg.connect(running.database_url)
    delays = []
    try:
        for _ in range(TURNS):
            began = time.perf_counter()
            await connection.fetch(STATUS)
            delays.append(time.perf_counter() - began)
    finally:
        await connection.close()
    return spread(delays)


async def plans_wrong(running: Plane) -> list[str]:
    """The hot statements that do not go by their index, or read a large table from end to end."""
    database = Database(running.database_url, clock=SystemClock(), session=PLANNER, pool_size=1)
    wrong = []
    try:
        for name, (statement, wanted) in HOT.items():
            found = await plan(database, statement)
            if LARGE.search(found) or not all(index in found for index in wanted):
                wrong.append(name)
    finally:
        await database.close()
    return wrong


async def folded(running: Plane) -> None:
    """Waits until the service has folded the counts of rows it did not write."""
    connection = await asyncpg.connect(running.database_url)
    try:
        deadline = time.monotonic() + 30
        while await connection.fetchval("SELECT count(*) FROM queue.state_count_deltas"):
            if time.monotonic() > deadline:
                raise RuntimeError("the counts were not folded within 30 s")
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def measure(jobs: int = JOBS, million: int = MILLION) -> dict[str, Any]:
    """All of it; the load of the machine before it tells how much to believe."""
    figures: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2)}
    async with plane({}, services=("queue",)) as running:
        _say("one task at a time")
        figures["one_task"] = await one_task(running, jobs, 1)
        _say("batches")
        figures["throughput"] = await throughput(running, jobs)
        _say("a million rows")
        figures["at_a_million"] = await at_a_million(running, million)
        _say("reports")
        figures["report_new"] = await load(running, "report", count=TURNS, caller="ingest")
        figures["reports"] = await load(running, "reports", count=REPORTS, batch=500, workers=2, caller="ingest")
    return {**figures, "targets": reached(figures)}


def reached(figures: dict[str, Any]) -> dict[str, Any]:
    """Every target with what was measured; what was not measured has no verdict."""
    ratios, full = figures["throughput"]["ratios"], figures["at_a_million"]
    found = {
        "claim_to_raw": figures["one_task"]["claim_to_raw"],
        "claim_at_a_million_p99_ms": full["claim"]["p99_ms"],
        "to_graphile_worker": ratios.get("to_graphile_worker"),
        "to_pgqueuer": ratios.get("to_pgqueuer"),
        "status_at_a_million_p50_ms": full["status_view"]["p50_ms"],
        "stats_at_a_million_p50_ms": full["stats"]["p50_ms"],
    }
    verdicts: dict[str, Any] = {"plans_by_index": {"target": [], "found": full["plans_wrong"]}}
    verdicts["plans_by_index"]["reached"] = not full["plans_wrong"]
    for name, target in TARGETS.items():
        value = found[name]
        verdicts[name] = {"target": target, "found": value}
        if value is not None:
            verdicts[name]["reached"] = value >= target if name.startswith("to_") else value <= target
    return verdicts


def _say(what: str) -> None:
    print(f"bench: queue: {what} …", file=sys.stderr)
