"""Fifty workers in five processes, three slots, kills at random: never are four taken, and none is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import pytest

from deploy.local.processes import RunningProcess, Starter, starter, usable_starter
from deploy.local.testing import BackingServices, until
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.names import new_id
from services.patcher.store import slots
from tests.chaos import commit_order

BUDGET, PROCESSES = 3, 5
HOLDERS = 200
RUN_SECONDS, KILL_SECONDS = 6.0, 0.35
COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'patcher' AND table_name = 'attempts' AND is_nullable = 'NO'
"""
# What the agent's silence, or its plugin's leaving, does to an attempt in the end.
DIED = "UPDATE patcher.attempts SET state = 'rollback_failed', end_time = $2 WHERE id = ANY($1) AND end_time IS NULL"
DONE = "SELECT count(*) FROM patcher.attempts WHERE state = 'success'"
TAKEN = "SELECT count(*) FROM patcher.slots"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


@dataclass
class Crowd:
    """Processes of ten workers each; who is killed is replaced, and its holders are over."""

    backing: BackingServices
    starter: Starter
    connection: asyncpg.Connection
    database: Database
    chance: random.Random
    locked: bool = True
    running: dict[str, tuple[RunningProcess, list[str]]] = field(default_factory=dict)
    kills: int = 0
    reclaimed: int = 0

    async def begin(self, name: str) -> None:
        """Starts a process with holders of its own."""
        holders = await attempts(self.connection, HOLDERS)
        order = {
            "url": self.backing.url("patcher"), "holders": holders, "limit": BUDGET, "locked": self.locked,
            "seed": self.chance.randrange(2**32),
        }  # fmt: skip
        environ = {**os.environ, "SLOT_ORDER": json.dumps(order)}
        log = self.backing.folder / "slots.log"
        made = await self.starter.start(name, "tests.chaos.slot_workers", environ, log)
        self.running[name] = (made, holders)

    async def kill(self, name: str) -> None:
        """Kills a process; its holders end when it is dead for certain."""
        process, holders = self.running.pop(name)
        process.signal(signal.SIGKILL)
        await process.wait()
        await self.connection.execute(DIED, holders, datetime.now(UTC))
        self.kills += 1

    async def reclaim(self) -> None:
        """What the patcher's sweep does."""
        self.reclaimed += await self.database.transaction(lambda tx: slots.reclaim(tx, tx.now))


async def attempts(connection: asyncpg.Connection, count: int) -> list[str]:
    """So many attempts in flight, with nothing in them that matters here."""
    ids = [new_id() for _ in range(count)]
    blank = {"text": "''", "boolean": "false", "jsonb": "'{}'", "timestamp with time zone": "TIMESTAMPTZ '2026-01-01'"}
    values = {row["column_name"]: blank.get(row["data_type"], "0") for row in await connection.fetch(COLUMNS)}
    values |= {"id": "id", "decision": "id", "plugin": "id", "package": "'checkout'", "state": "'applying'"}
    await connection.execute(
        f"INSERT INTO patcher.attempts ({', '.join(values)}) "  # noqa: S608 - names of the catalogue
        f"SELECT {', '.join(values.values())} FROM unnest($1::text[]) AS given(id)",
        ids,
    )
    return ids


@pytest.fixture
async def crowd(backing: BackingServices) -> AsyncIterator[Crowd]:
    seed = int(os.environ.get("PRUNELLA_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PRUNELLA_CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    await commit_order.install(backing.url())
    connection = await asyncpg.connect(backing.url())
    database = Database(backing.url("patcher"), clock=SystemClock(), pool_size=2)
    forks = await usable_starter(await starter(backing.folder / "forkserver.log"))
    made = Crowd(backing, forks, connection, database, random.Random(seed))  # noqa: S311 - who is killed
    try:
        yield made
    finally:
        for name in list(made.running):
            await made.kill(name)
        await forks.stop()
        await database.close()
        await connection.close()


async def test_never_more_than_the_budget_whoever_is_killed_and_no_slot_is_lost(crowd: Crowd) -> None:
    for number in range(PROCESSES):
        await crowd.begin(f"crowd{number}")
    await until(lambda: crowd.connection.fetchval(DONE), 30, what="the first slot is given back")
    over = asyncio.get_running_loop().time() + RUN_SECONDS
    while asyncio.get_running_loop().time() < over:
        name = crowd.chance.choice(sorted(crowd.running))
        await crowd.kill(name)
        await crowd.begin(name)
        await crowd.reclaim()
        await asyncio.sleep(KILL_SECONDS)
    for name in list(crowd.running):
        await crowd.kill(name)
    await crowd.reclaim()
    done = await crowd.connection.fetchval(DONE)
    print(f"{crowd.kills} kills, {crowd.reclaimed} slots reclaimed, {done} holders done")  # noqa: T201
    assert await commit_order.budget_kept(crowd.connection, BUDGET) == []
    assert await crowd.connection.fetchval(TAKEN) == 0, "no slot is lost"
    assert crowd.kills >= PROCESSES + 3
    assert crowd.reclaimed >= 3, "if nobody was killed with a slot in hand, this shows nothing"
    assert done >= 50


async def test_without_the_lock_the_same_crowd_goes_over_the_budget(crowd: Crowd) -> None:
    crowd.locked = False
    for number in range(PROCESSES):
        await crowd.begin(f"crowd{number}")
    await until(lambda: commit_order.budget_kept(crowd.connection, BUDGET), 30, what="more than the budget are taken")
