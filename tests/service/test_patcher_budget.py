"""The in-flight budget under a rush: never more than the limit hold a slot, and every slot comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.testing import BackingServices, until
from libs.common.database import Transaction
from prunella.v1 import agent_pb2
from services.patcher.store import slots
from tests.service.governance import of, set_policy
from tests.service.patcher_alone import KINDS, PatcherAlone, archive

BUDGET, RUSH = 3, 15
# Counted by the database itself whenever a slot is taken: what a test could only glance at is written down each time.
COUNTED = """
CREATE TABLE patcher.seen (taken integer NOT NULL);
CREATE FUNCTION patcher.count_slots() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO patcher.seen SELECT count(*) FROM patcher.slots WHERE package = NEW.package;
    RETURN NEW;
END $$;
CREATE TRIGGER counted AFTER INSERT ON patcher.slots FOR EACH ROW EXECUTE FUNCTION patcher.count_slots()
"""


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        connection = await asyncpg.connect(backing.url(), timeout=5, command_timeout=10)
        await connection.execute(COUNTED)
        await connection.close()
        await patcher.publish(archive(tmp_path / "release"))
        await set_policy(patcher, require_staging=False, max_in_flight=BUDGET)
        yield patcher
    finally:
        await patcher.stop()


async def most(alone: PatcherAlone) -> int:
    (row,) = await alone.plane.sql("SELECT coalesce(max(taken), 0) AS most FROM patcher.seen")
    return int(row.most)


async def rush(alone: PatcherAlone) -> None:
    """Many decisions at once, for agents of which every third fails and every fifth is never heard of."""

    async def fare(command: agent_pb2.Command, plugin: str) -> None:
        number = int(plugin.removeprefix("p"))
        if KINDS[command.kind] == "update" and number % 3 == 0:
            await alone.finish(command, "failed", plugin, detail="no room")
        elif KINDS[command.kind] != "update" or number % 5:
            await alone.obey(command, plugin)

    alone.ingest.carry_out = fare
    alone.report()
    await asyncio.gather(*(alone.decide(plugin=f"p{number}") for number in range(1, RUSH + 1)))


async def test_never_more_than_the_budget_and_no_slot_is_lost(alone: PatcherAlone) -> None:
    await rush(alone)
    for number in range(1, RUSH + 1):
        if number % 3 and number % 5:
            await of(alone, f"p{number}", "success", timeout=40)
        elif not number % 3:
            await of(alone, f"p{number}", "failed", timeout=40)
    silent = await alone.plane.sql("SELECT id FROM patcher.attempts WHERE state = 'applying'")
    kept = await alone.plane.sql("SELECT holder AS id FROM patcher.slots")
    assert sorted(row.id for row in kept) == sorted(row.id for row in silent), "who is in flight holds the slots"
    assert await most(alone) <= BUDGET


async def test_without_the_limit_the_same_rush_goes_over_the_budget(
    alone: PatcherAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = slots.take

    async def generous(tx: Transaction, package: str, holder: str, merchant: str, _limit: int) -> int | None:
        return await take(tx, package, holder, merchant, 10_000)

    monkeypatch.setattr(slots, "take", generous)
    monkeypatch.setattr("services.patcher.policy.gates.in_flight_limit", lambda _policy, _fleet: 10_000)
    await rush(alone)

    async def over() -> bool:
        return await most(alone) > BUDGET

    await until(over, what="more than the budget are in flight; if not, the test above shows nothing")
