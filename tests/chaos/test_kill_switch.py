"""The kill switch holds while patchers are killed and PostgreSQL is restarted: nothing is permitted after it.

The seed of the run is printed; PRUNELLA_CHAOS_SEED takes it again.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices, until
from libs.common.bus import dead_letters
from libs.common.names import new_id
from prunella.v1 import agent_pb2, patcher_pb2
from tests.chaos import commit_order, invariants
from tests.chaos.siege import PermitAnswer, Siege, Stop, contradictions, steadily
from tests.service.governance import set_policy
from tests.service.patcher_alone import PatcherAlone, archive

ATTEMPTS, AT_ONCE = 50, 5
LEAST_KILLS, LEAST_DENIED = 3, 3
DENIED_SECONDS = 10.0
SCOPES = ("global", "global", "merchants/m1", "actions/patch", "plugins/p7")
ENDED = "SELECT count(*) FROM patcher.attempts WHERE end_time IS NOT NULL"
ENDS = "SELECT state, count(*) AS number FROM patcher.attempts GROUP BY state"
# What patchers died over too often is given up, and a person has it handed out again.
REDRIVE = "UPDATE bus.dead_letters SET redrive_time = now() WHERE consumer = 'patcher' AND redrive_time IS NULL"
DEAD_LETTERS = "SELECT fact, reason, errors, crashes FROM bus.dead_letters WHERE consumer = 'patcher'"
UNTRIED = """
SELECT f.id, f.plugin, f.publish_time, i.handle_time, d.reason AS dead_letter, d.redrive_time FROM bus.facts f
LEFT JOIN bus.inbox i ON i.event_id = f.id AND i.consumer = 'patcher'
LEFT JOIN bus.dead_letters d ON d.event_id = f.id AND d.consumer = 'patcher'
WHERE f.fact = 'decision_made' AND NOT EXISTS (SELECT 1 FROM patcher.attempts a WHERE a.incident = f.incident)
"""
UNENDED = "SELECT id, plugin, state FROM patcher.attempts WHERE end_time IS NULL"
DEFINITION = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'authorize_apply'"
GATE = "granted := gate = '';"


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_nothing_is_permitted_after_an_engage_whatever_dies_meanwhile(
    backing: BackingServices, tmp_path: Path
) -> None:
    seed = int(os.environ.get("PRUNELLA_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PRUNELLA_CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    await commit_order.install(backing.url())
    siege = Siege(backing, chance=random.Random(seed))  # noqa: S311 - who is killed, not a secret
    try:
        await siege.start()
        await siege.publish(archive(tmp_path / "release"))
        await set_policy(siege, require_staging=False, max_in_flight=2 * ATTEMPTS)
        siege.ingest.carry_out = siege.fare
        siege.report()
        pulled = asyncio.Event()
        await asyncio.gather(engage_at_random(siege, pulled), break_things(siege, pulled))
        await ends(siege)
    finally:
        await siege.stop()
    await check(backing, siege)


async def engage_at_random(siege: Siege, pulled: asyncio.Event) -> None:
    """Some attempts, an engage and a release in their midst, and again: however slow the machine, each is raced for."""
    for first in range(0, ATTEMPTS, AT_ONCE):
        await asyncio.gather(*(decided(siege, f"p{number}") for number in range(first, first + AT_ONCE)))
        await asyncio.sleep(siege.chance.uniform(0, 1))
        enough = denied(siege) >= LEAST_DENIED
        stop = await siege.engage(siege.chance.choice(SCOPES) if enough else "global")
        if not enough:
            before = denied(siege)
            with suppress(AssertionError):
                await until(lambda had=before: denied(siege) > had, DENIED_SECONDS, what="somebody asks in vain")
        await asyncio.sleep(siege.chance.uniform(0.1, 0.5))
        await siege.release(stop)
    pulled.set()


async def decided(siege: Siege, plugin: str) -> None:
    """Tells of one decision, again while the database is away: it stays one incident in one round."""
    told: dict[str, Any] = {"incident": new_id(), "plugin": plugin}
    await steadily(lambda: siege.decide(**told), 60)


def denied(siege: Siege) -> int:
    """How many asked while a kill switch covered them."""
    return sum(one.gate == "KILL_SWITCH" for one in siege.permit_answers)


async def break_things(siege: Siege, pulled: asyncio.Event) -> None:
    """Kills patchers until automation is stopped no more, and restarts the database once in between."""
    postgres, restarted = siege.backing.servers.postgres, False
    while not (pulled.is_set() and restarted and siege.kills >= LEAST_KILLS):
        # Ever more seldom, so that a slow machine has time for something else too.
        await asyncio.sleep(siege.chance.uniform(0.7, 1.4) * (1 + siege.kills / 8))
        if not restarted and siege.kills >= LEAST_KILLS:
            restarted = True
            await postgres.stop()
            await postgres.start()
        else:
            await siege.kill()


async def ends(siege: Siege) -> None:
    """Every attempt ends; what a killed patcher had begun comes back with its lease."""

    async def all_over() -> bool:
        connection = await asyncpg.connect(siege.backing.url(), timeout=5)
        try:
            await connection.execute(REDRIVE)
            return int(await connection.fetchval(ENDED)) >= ATTEMPTS
        finally:
            await connection.close()

    try:
        await until(all_over, 180, what="every attempt ends")
    except AssertionError:
        await report_what_is_missing(siege)
        raise


async def report_what_is_missing(siege: Siege) -> None:
    connection = await asyncpg.connect(siege.backing.url())
    try:
        for row in [*await connection.fetch(UNTRIED), *await connection.fetch(UNENDED)]:
            print(dict(row))  # noqa: T201 - pytest shows it when the test fails
    finally:
        await connection.close()


async def check(backing: BackingServices, siege: Siege) -> None:
    answers = Counter(one.gate or "granted" for one in siege.permit_answers)
    connection = await asyncpg.connect(backing.url())
    try:
        states = {row["state"]: row["number"] for row in await connection.fetch(ENDS)}
        dead = [dict(row) for row in await connection.fetch(DEAD_LETTERS)]
        print(  # noqa: T201
            f"{siege.kills} kills, {len(siege.stops)} engages, {len(dead)} dead letters, {dict(answers)}, {states}"
        )
        assert not [one for one in dead if one["errors"] or one["crashes"] < dead_letters.MAX_CRASHES], dead
        assert contradictions(siege.permit_answers, siege.stops) == []
        assert await commit_order.no_permit_under_a_kill(connection) == []
        assert await commit_order.budget_kept(connection, 2 * ATTEMPTS) == []
        assert await invariants.no_apply_after_kill(connection) == []
        assert await invariants.one_attempt(connection) == []
        assert await invariants.every_apply_ends(connection) == []
        assert not await connection.fetchval("SELECT count(*) FROM patcher.slots")
    finally:
        await connection.close()
    assert sum(states.values()) == ATTEMPTS
    assert siege.kills >= LEAST_KILLS and len(siege.stops) == ATTEMPTS // AT_ONCE
    assert answers["granted"] >= 10 and answers["KILL_SWITCH"] >= LEAST_DENIED, "both answers, or nothing was raced for"


# ---- the checkers themselves: the gate is taken out of the permit function of a database that is thrown away


@pytest.mark.parametrize("gate", ["there", "taken out"])
async def test_a_build_without_the_gate_is_found_out(backing: BackingServices, tmp_path: Path, gate: str) -> None:
    await commit_order.install(backing.url())
    alone = PatcherAlone(backing)
    try:
        await alone.start()
        await alone.publish(archive(tmp_path / "release"))
        await set_policy(alone, require_staging=False)
        await alone.decide()
        command = await alone.command("update")
        connection = await asyncpg.connect(backing.url())
        try:
            if gate == "taken out":
                await take_the_gate_out(connection)
            permit_answers, stop = await answer_after_engaging(alone, command)
            assert permit_answers.granted is (gate == "taken out")
            found = [contradictions([permit_answers], [stop]), await commit_order.no_permit_under_a_kill(connection)]
        finally:
            await connection.close()
        assert [bool(complaints) for complaints in found] == [gate == "taken out"] * 2
    finally:
        await alone.stop()


async def take_the_gate_out(connection: asyncpg.Connection) -> None:
    definition = await connection.fetchval(DEFINITION)
    assert definition.count(GATE) == 1, "the permit function is not what it was"
    await connection.execute(definition.replace(GATE, "gate := ''; granted := true;"))


async def answer_after_engaging(alone: PatcherAlone, command: agent_pb2.Command) -> tuple[PermitAnswer, Stop]:
    """A permit that is asked for a moment after everything was stopped."""

    request = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test", request_id=new_id())
    await alone.stub.EngageKillSwitch(request, timeout=10)
    stop = Stop("global", time.monotonic())
    begun = time.monotonic()
    answer = await steadily(lambda: alone.ask(command))
    return PermitAnswer("p1", begun, time.monotonic(), answer.granted, answer.gate), stop
