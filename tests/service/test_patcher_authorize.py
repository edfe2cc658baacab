"""The permit and the kill switch: no switch is permitted after a kill switch that covers it was committed.

The same race is run against the function as it is, and against a variant whose lock and read are one statement; the
variant permits after the kill, which is why there are two statements.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices, until
from libs.common.errors import Denied
from libs.common.names import new_id
from prunella.v1 import agent_pb2, patcher_pb2
from services.patcher.policy import Action, GateRequest, Policy, Refuse, Severity, gate
from tests.service.patcher_alone import PatcherAlone, archive, plugin_of

# What the permit function must not be: the snapshot is older than the lock.
ONE_STATEMENT = """
CREATE OR REPLACE FUNCTION patcher.authorize_apply(
    p_nonce text, p_permit text, p_plugin text, p_attempt text, p_command text, p_generation bigint, p_fence bigint,
    p_now timestamptz, p_objection text DEFAULT '',
    OUT granted boolean, OUT permit text, OUT gate text, OUT fresh boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT pg_advisory_xact_lock_shared(patcher.lock_key('global')),
               pg_advisory_xact_lock_shared(patcher.lock_key('merchants/m1')),
               pg_advisory_xact_lock_shared(patcher.lock_key('plugins/' || p_plugin)),
               pg_advisory_xact_lock_shared(patcher.lock_key('actions/patch')))
    SELECT CASE WHEN EXISTS (SELECT 1 FROM patcher.kill_switches WHERE engaged) THEN 'KILL_SWITCH' ELSE '' END
    INTO gate FROM locked;
    granted := gate = ''; permit := CASE WHEN granted THEN p_permit ELSE '' END; fresh := true;
    INSERT INTO patcher.permits (attempt, merchant, nonce, permit, plugin, command, generation, fence, granted, gate,
                                 create_time)
    VALUES (p_attempt, 'm1', p_nonce, permit, p_plugin, p_command, p_generation, p_fence, granted, gate, p_now);
END $$
"""
WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        yield patcher
    finally:
        await patcher.stop()


async def commanded(alone: PatcherAlone, plugin: str = "p1", **changes: Any) -> agent_pb2.Command:
    """An attempt whose command has reached the agent."""
    before = len(alone.ingest.commands)
    await alone.decide(plugin=plugin, **changes)
    await until(lambda: len(alone.ingest.commands) > before, what="a command is issued")
    return alone.ingest.commands[-1]


def engage(
    alone: PatcherAlone, scope: str = "global", **more: Any
) -> asyncio.Task[patcher_pb2.EngageKillSwitchResponse]:
    request = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason="a test", request_id=new_id(), **more)

    async def call() -> patcher_pb2.EngageKillSwitchResponse:
        return await alone.stub.EngageKillSwitch(request, timeout=20)

    return asyncio.create_task(call())


async def owner(alone: PatcherAlone) -> asyncpg.Connection:
    return await asyncpg.connect(alone.backing.url(), timeout=5, command_timeout=10)


async def waiting(connection: asyncpg.Connection, number: int = 1) -> None:
    """Until that many transactions wait for an advisory lock."""

    async def look() -> bool:
        return int(await connection.fetchval(WAITING)) >= number

    await until(look, what=f"{number} transactions wait")


async def race(alone: PatcherAlone, command: agent_pb2.Command) -> patcher_pb2.AuthorizeApplyResponse:
    """A permit is asked for while a kill switch is being engaged; returns the answer."""
    killer, watcher = await owner(alone), await owner(alone)
    try:
        transaction = killer.transaction()
        await transaction.start()
        await killer.execute("SELECT pg_advisory_xact_lock(patcher.lock_key('global'))")
        asked = asyncio.create_task(alone.ask(command))
        await waiting(watcher)
        await killer.execute("INSERT INTO patcher.kill_switches VALUES ('global', true, 1, 'ann', 'a test', now())")
        await transaction.commit()
        return await asked
    finally:
        await killer.close()
        await watcher.close()


async def test_a_permit_that_waited_for_an_engaging_switch_is_denied(alone: PatcherAlone) -> None:
    answer = await race(alone, await commanded(alone))
    assert (answer.granted, answer.gate, answer.permit) == (False, "KILL_SWITCH", "")


async def test_with_one_statement_instead_of_two_the_same_race_permits_after_the_kill(alone: PatcherAlone) -> None:
    command = await commanded(alone)
    connection = await owner(alone)
    await connection.execute(ONE_STATEMENT)
    await connection.close()
    answer = await race(alone, command)
    assert answer.granted, "if this is denied, the race no longer shows what it is there to show"


async def test_engaging_waits_for_a_permit_that_is_being_given_and_lists_it(alone: PatcherAlone) -> None:
    command = await commanded(alone)
    paused, watcher = await owner(alone), await owner(alone)
    try:
        transaction = paused.transaction()
        await transaction.start()
        given = await paused.fetchrow(
            "SELECT * FROM patcher.authorize_apply('n', 'permit', 'p1', $1, $2, $3, $4, now())",
            command.attempt, command.id, command.generation, command.fence,
        )  # fmt: skip
        assert given["granted"]
        await paused.execute("UPDATE patcher.attempts SET permitted = true, permit_time = now()")
        engaging = engage(alone)
        await waiting(watcher)
        assert not engaging.done(), "its commit would be a lie while a permit is under way"
        await transaction.commit()
        answer = await engaging
        assert [attempt.name for attempt in answer.in_flight] == [f"attempts/{command.attempt}"]
        assert (await alone.ask(command)).gate == "KILL_SWITCH"
    finally:
        await paused.close()
        await watcher.close()


async def test_fifty_permits_race_with_a_kill_switch_and_none_is_given_after_it(alone: PatcherAlone) -> None:
    await set_policy(alone, require_staging=False, max_in_flight=100)
    found = [await commanded(alone, f"p{number}") for number in range(50)]

    async def ask(number: int) -> patcher_pb2.AuthorizeApplyResponse:
        return await alone.ask(found[number], f"p{number}")

    asking = [asyncio.create_task(ask(number)) for number in range(50)]
    await until(lambda: sum(task.done() for task in asking) > 3, what="some permits are given")
    answer = await engage(alone)
    permits = await asyncio.gather(*asking)
    given = [permit.permit for permit in permits if permit.granted]
    assert given
    # Both rows are written once, and only under their locks: the order of their transactions is the order of the locks.
    late = await alone.plane.sql(
        "SELECT 1 FROM patcher.permits p, patcher.kill_switches k "
        "WHERE p.granted AND p.xmin::text::bigint > k.xmin::text::bigint"
    )
    assert not late
    flying = {attempt.name for attempt in answer.in_flight}
    rows = await alone.plane.sql("SELECT 'attempts/' || attempt AS name FROM patcher.permits WHERE granted")
    assert {row.name for row in rows} == flying, "what was permitted is what engaging lists"


async def test_a_repeated_question_gets_the_same_answer_and_one_fact(alone: PatcherAlone) -> None:
    command = await commanded(alone)
    request = patcher_pb2.AuthorizeApplyRequest(
        plugin="p1", command=command.id, attempt=command.attempt, generation=command.generation, fence=command.fence,
        request_id="nonce-1",
    )  # fmt: skip
    first = await alone.for_ingest.AuthorizeApply(request, timeout=4)
    again = await alone.for_ingest.AuthorizeApply(request, timeout=4)
    assert first.granted
    assert first == again
    assert len(await alone.plane.facts("apply_authorized")) == 1
    attempt = await alone.attempt("applying")
    assert (attempt.permitted, attempt.command) == (True, command.id)


@pytest.mark.parametrize(
    ("changes", "gate_name"),
    [
        ({"command": "another"}, "COMMAND_STALE"),
        ({"generation": 99}, "COMMAND_STALE"),
        ({"fence": 99}, "COMMAND_STALE"),
        ({"plugin": "p2"}, "ATTEMPT_UNKNOWN"),
        ({"attempt": "nobody"}, "ATTEMPT_UNKNOWN"),
    ],
)
async def test_a_permit_is_for_the_current_command_of_the_attempt_alone(
    alone: PatcherAlone, changes: dict[str, Any], gate_name: str
) -> None:
    command = await commanded(alone)

    async def settled() -> bool:
        return bool((await alone.attempt("applying")).command)

    await until(settled)
    request = patcher_pb2.AuthorizeApplyRequest(
        plugin="p1", command=command.id, attempt=command.attempt, generation=command.generation, fence=command.fence,
        request_id=new_id(),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(request, name, value)
    answer = await alone.for_ingest.AuthorizeApply(request, timeout=4)
    assert (answer.granted, answer.gate) == (False, gate_name)
    assert not await alone.plane.facts("apply_authorized")


async def test_a_cancelled_attempt_gets_no_permit_any_more_and_its_command_is_withdrawn(alone: PatcherAlone) -> None:
    command = await commanded(alone)
    request = patcher_pb2.CancelAttemptRequest(name=f"attempts/{command.attempt}", reason="a test", request_id="c")
    await alone.stub.CancelAttempt(request, timeout=5)
    assert (await alone.ask(command)).gate == "ATTEMPT_NOT_APPLYING"
    await until(lambda: alone.ingest.withdrawn == [command.id], what="the command is withdrawn")


async def test_only_ingest_may_ask(alone: PatcherAlone) -> None:
    with pytest.raises(Denied):
        await alone.stub.AuthorizeApply(patcher_pb2.AuthorizeApplyRequest(), timeout=4)


async def test_policy_is_asked_again_at_the_permit(alone: PatcherAlone) -> None:
    command = await commanded(alone)
    await set_policy(alone, min_confidence=0.9)
    assert (await alone.ask(command)).gate == "CONFIDENCE"


async def set_policy(alone: PatcherAlone, **values: Any) -> None:
    policy = patcher_pb2.Policy(**{name: value for name, value in values.items() if not isinstance(value, list)})
    for name, value in values.items():
        if isinstance(value, list):
            getattr(policy, name).extend(value)
    request = patcher_pb2.UpdatePolicyRequest(policy=policy, request_id=new_id(), reason="a test")
    request.update_mask.paths.extend(values)
    await alone.stub.UpdatePolicy(request, timeout=5)


async def test_the_function_and_the_heart_ask_the_same_gates(alone: PatcherAlone) -> None:
    """Two writings of one rule: every combination of what may differ is put to both."""
    command = await commanded(alone)
    connection = await owner(alone)
    try:
        await connection.execute("SET session_replication_role = replica")
        for policy in POLICIES:
            await connection.execute(
                "UPDATE patcher.policy SET autopatch_enabled = $1, autopatch_merchants = $2, require_staging = $3",
                policy.autopatch_enabled, list(policy.autopatch_merchants), policy.require_staging,
            )  # fmt: skip
            for wish in WISHES:
                await connection.execute(
                    "UPDATE patcher.attempts SET action = $1, severity = $2, confidence = $3, staged = $4",
                    wish.action, int(wish.severity), wish.confidence, wish.staged,
                )  # fmt: skip
                said = await connection.fetchval(
                    "SELECT gate FROM patcher.authorize_apply($1, 'x', 'p1', $2, $3, $4, $5, now())",
                    new_id(), command.attempt, command.id, command.generation, command.fence,
                )  # fmt: skip
                answer = gate(policy, (), wish)
                assert said == (answer.gate if isinstance(answer, Refuse) else ""), (policy, wish)
    finally:
        await connection.close()


POLICIES = [
    Policy(),
    Policy(autopatch_enabled=False),
    Policy(autopatch_merchants=("m2",)),
    Policy(autopatch_merchants=("m1", "m2")),
    Policy(require_staging=False),
]
WISHES = [
    GateRequest("p1", "m1", action, severity, confidence, staged)
    for action in Action
    for severity in Severity
    for confidence in (0.74, 0.75, 1.0)
    for staged in (True, False)
]


async def test_a_plugin_that_is_no_longer_there_starts_nothing(alone: PatcherAlone) -> None:
    alone.ingest.plugins["p9"] = plugin_of("p9", state="retired")
    _, event = await alone.decide(plugin="p9")
    await alone.heard(event)
    assert not await alone.plane.facts("attempt_created")
