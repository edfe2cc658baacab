"""A process of workers that take slots, hold them for a moment and give them back; it is killed while they do.

A worker's holder is a row of patcher.attempts; slot and row end in one transaction, as in the patcher. The order comes
in the variable SLOT_ORDER: the database, the holders, the limit, and whether the package is locked while it counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

from libs.common.clock import SystemClock
from libs.common.database import Database, Transaction
from libs.common.errors import Problem
from services.patcher.store import slots

WORKERS = 10
LONGEST_HOLD, PAUSE = 0.08, 0.02
END = "UPDATE patcher.attempts SET state = 'success', end_time = :now WHERE id = :id"


async def take(database: Database, holder: str, limit: int) -> bool:
    """Takes a slot; whether there was one."""

    async def work(tx: Transaction) -> bool:
        return await slots.take(tx, "checkout", holder, "m1", limit) is None

    return await database.transaction(work)


async def give_back(database: Database, holder: str) -> None:
    """The holder's end and its slot's."""

    async def work(tx: Transaction) -> None:
        await tx.run(END, id=holder, now=tx.now)
        await slots.free(tx, holder)

    await database.transaction(work)


async def work(database: Database, holders: list[str], limit: int, chance: random.Random) -> None:
    """One worker: takes, holds, gives back, and begins again with the next holder."""
    while holders:
        holder = holders.pop()
        try:
            if await take(database, holder, limit):
                await asyncio.sleep(chance.uniform(0, LONGEST_HOLD))
                await give_back(database, holder)
                continue
        except Problem:
            # As in a patcher: what is not answered is asked again.
            pass
        holders.append(holder)
        await asyncio.sleep(chance.uniform(0, PAUSE))


async def main(order: dict[str, Any]) -> None:
    """Works until there are no holders left, or it is killed."""
    if not order["locked"]:
        slots.LOCK = "SELECT 1 WHERE :package <> ''"
    database = Database(order["url"], clock=SystemClock(), pool_size=WORKERS)
    chance = random.Random(order["seed"])  # noqa: S311 - how long a slot is held, not a secret
    await asyncio.gather(*(work(database, order["holders"], order["limit"], chance) for _ in range(WORKERS)))
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(os.environ["SLOT_ORDER"])))
