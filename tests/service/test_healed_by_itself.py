"""An illness that is over ends what waits for it, whatever it waits for, and nothing is applied to a healthy plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices
from libs.common.names import new_id
from prunella.v1 import events_pb2, patcher_pb2
from tests.service.governance import of, set_policy, storm, whole
from tests.service.patcher_alone import PatcherAlone, archive


@pytest.fixture
async def alone(backing: BackingServices, tmp_path: Path) -> AsyncIterator[PatcherAlone]:
    patcher = PatcherAlone(backing)
    try:
        await patcher.start()
        await patcher.publish(archive(tmp_path / "release"))
        await patcher.publish(archive(tmp_path / "major", main="print('two')"), version="2.0.0")
        await set_policy(patcher, require_staging=False)
        yield patcher
    finally:
        await patcher.stop()


async def kill_switch(alone: PatcherAlone) -> dict[str, Any]:
    request = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test", request_id=new_id())
    await alone.stub.EngageKillSwitch(request, timeout=10)
    return {}


async def in_a_storm(alone: PatcherAlone) -> dict[str, Any]:
    await alone.heard(await storm(alone))
    return {}


async def frozen(alone: PatcherAlone) -> dict[str, Any]:
    window = patcher_pb2.FreezeWindow(cron="* * * * *", time_zone="UTC", reason="always")
    window.duration.FromSeconds(3600)
    await set_policy(alone, freeze_windows=[window])
    return {}


async def budget(alone: PatcherAlone) -> dict[str, Any]:
    await set_policy(alone, max_in_flight=1)
    await alone.decide(plugin="other")
    await of(alone, "other", "applying")
    return {}


async def canary(alone: PatcherAlone) -> dict[str, Any]:
    await set_policy(alone, canary_percentage=1, canary_merchants=["m9"])
    return {}


async def approval(alone: PatcherAlone) -> dict[str, Any]:
    return {"release": "2.0.0"}


WAITS: dict[str, tuple[Callable[[PatcherAlone], Awaitable[dict[str, Any]]], str, str]] = {
    "kill switch": (kill_switch, "staged", "KILL_SWITCH"),
    "storm": (in_a_storm, "staged", "STORM"),
    "freeze": (frozen, "staged", "FREEZE"),
    "budget": (budget, "staged", "BUDGET"),
    "canary": (canary, "staged", "CANARY"),
    "approval": (approval, "awaiting_approval", ""),
}


async def well(alone: PatcherAlone, incident: str, plugin: str = "p1") -> events_pb2.Event:
    closed = events_pb2.IncidentClosed(
        resolution="healthy for 5 windows", healed_by_itself=True, type="webhook_fail_rate"
    )
    return await alone.tell(closed, source="ingest", incident=incident, plugin=plugin)


@pytest.mark.parametrize("wait", WAITS)
async def test_whatever_it_waits_for_it_is_cancelled_once_the_plugin_is_well(alone: PatcherAlone, wait: str) -> None:
    prepare, state, gate = WAITS[wait]
    changes = await prepare(alone)
    incident, _ = await alone.decide(**changes)
    held = await of(alone, "p1", state, "pending", "staging", held_by=gate)
    event = await well(alone, incident)
    ended = await of(alone, "p1", "cancelled")
    assert ended.name == held.name
    await alone.heard(event, event)
    (told,) = await alone.plane.facts("attempt_cancelled", plugin="p1")
    assert told.attempt_cancelled.healed_by_itself
    assert not [one for one in alone.ingest.commands if one.attempt == ended.name.removeprefix("attempts/")]
    if wait == "approval":
        asked = (await alone.plane.wait_for_fact("approval_ended")).approval_ended
        assert asked.outcome == "withdrawn"


async def test_a_switch_that_is_released_later_applies_nothing(alone: PatcherAlone) -> None:
    await kill_switch(alone)
    incident, _ = await alone.decide()
    held = await of(alone, "p1", "pending", "staged", held_by="KILL_SWITCH")
    await alone.heard(await well(alone, incident))
    await alone.release_switch("global")
    assert (await whole(alone, held.name)).state == "cancelled"
    assert not alone.ingest.commands


async def test_a_command_on_its_way_to_an_agent_that_was_away_is_not_permitted_any_more(alone: PatcherAlone) -> None:
    incident, _ = await alone.decide()
    command = await alone.command("update")
    await of(alone, "p1", "applying")
    await well(alone, incident)
    answer = await alone.ask(command)
    # Whether the patcher has heard that it is over or not: what is recorded counts.
    assert (answer.granted, answer.gate in {"INCIDENT_OVER", "ATTEMPT_NOT_APPLYING"}) == (False, True)
    await of(alone, "p1", "cancelled")


OVER = """
INSERT INTO bus.facts (id, time, source, fact, plugin, merchant, incident, actor, reason, cause_id, payload,
    traceparent)
VALUES (CAST($1 AS uuid), now(), 'ingest', 'incident_closed', 'p1', 'm1', $2, '', '', '', '', '')
"""
ASK = "SELECT granted, gate FROM patcher.authorize_apply($1, 'permit', 'p1', $2, $3, $4, $5, now())"


@pytest.mark.parametrize("over", [True, False])
async def test_the_permit_is_refused_in_the_transaction_that_would_give_it(alone: PatcherAlone, over: bool) -> None:
    incident, _ = await alone.decide()
    command = await alone.command("update")
    await of(alone, "p1", "applying")
    connection = await asyncpg.connect(alone.backing.url(), timeout=5)
    transaction = connection.transaction()
    await transaction.start()
    try:
        if over:
            # Seen by this transaction alone: the patcher cannot have acted on it.
            await connection.execute(OVER, new_id(), incident)
        about = command.attempt, command.id, command.generation, command.fence
        answer = await connection.fetchrow(ASK, "n", *about)
        assert (answer["granted"], answer["gate"]) == ((False, "INCIDENT_OVER") if over else (True, ""))
    finally:
        await transaction.rollback()
        await connection.close()


async def test_from_the_permit_on_it_is_finished(alone: PatcherAlone) -> None:
    incident, _ = await alone.decide()
    command = await alone.command("update")
    assert (await alone.ask(command)).granted
    await alone.heard(await well(alone, incident))
    assert (await of(alone, "p1", "applying")).permitted
