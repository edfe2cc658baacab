"""Twice, late, out of order, and by two: a healing happens once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from deploy.local.testing import FakeAgent, Plane, until
from libs.common.bus import Consumer
from libs.common.facts import NAMES
from tests.chaos.conftest import CONSUMERS
from tests.chaos.invariants import complaints

STATE = {
    "incidents": "SELECT id, state, round, tried, attempt, resolution FROM ingest.incidents ORDER BY id",
    "commands": "SELECT id, kind, fence, state FROM ingest.commands ORDER BY id",
    "decisions": "SELECT id, incident, round, state, action, release, confidence FROM decider.decisions ORDER BY id",
    "attempts": "SELECT id, decision, state, tries, rollbacks FROM patcher.attempts ORDER BY id",
    "timeline": "SELECT event_id, fact FROM ops.timeline ORDER BY event_id",
    "facts": "SELECT id, fact FROM bus.facts ORDER BY id",
}


async def state(plane: Plane) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a fact could have an effect on."""
    return {name: [tuple(row) for row in await plane.sql(statement)] for name, statement in STATE.items()}


async def breaks(plane: Plane, label: str, *, heals: bool = True) -> FakeAgent:
    """An agent with a window behind it that has just sent its first bad beat."""
    agent = await plane.agent(label)
    agent.heals = heals
    agent.beat()
    await agent.acknowledged()
    agent.beat(webhooks=25, failed=15)
    return agent


def consumers(plane: Plane) -> dict[str, Consumer]:
    """The consumer of each service, by the service's name."""
    return {
        name: part for name, service in plane.services.items() for part in service.parts if isinstance(part, Consumer)
    }


@pytest.fixture
async def healed(relay_plane: Plane) -> Plane:
    """One plugin was healed and another could not be: a story with every turn in it."""
    good = await breaks(relay_plane, "good")
    await relay_plane.wait_for_fact("incident_mitigated", 60.0, plugin=good.plugin)
    bad = await breaks(relay_plane, "bad", heals=False)
    await relay_plane.wait_for_fact("incident_escalated", 90.0, plugin=bad.plugin)
    await rests(relay_plane)
    return relay_plane


async def rests(plane: Plane) -> None:
    async def arrived() -> bool:
        return not await complaints(plane.backing.url(), CONSUMERS)

    try:
        await until(arrived, 30.0, what="every fact has arrived")
    except AssertionError:
        assert await complaints(plane.backing.url(), CONSUMERS) == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_whole_story_told_again_in_any_order_changes_nothing(healed: Plane, seed: int) -> None:
    before = await state(healed)
    events = await healed.facts()
    random.Random(seed).shuffle(events)  # noqa: S311 - an order, not a secret
    # Even without the inbox: reactions are keyed by nature and look whether their cause still stands.
    await healed.clear_inbox()
    for event in [*events, *events]:
        for consumer in consumers(healed).values():
            if event.WhichOneof("fact") in consumer.reactions:
                assert await consumer.handle(event) is None, event.WhichOneof("fact")
    after = await state(healed)
    for name in STATE:
        assert after[name] == before[name], name


@pytest.mark.timeout(240)
async def test_two_replicas_of_every_service_do_the_work_once(relay_plane: Plane) -> None:
    for name in ("ingest", "decider", "patcher", "queue", "ops"):
        await relay_plane.start_service(name, replica=True)
    agents = await asyncio.gather(*(breaks(relay_plane, f"shop-{number}") for number in range(8)))
    for agent in agents:
        await relay_plane.wait_for_fact("incident_mitigated", 90.0, plugin=agent.plugin)
    for agent in agents:
        told = [event.WhichOneof("fact") for event in await relay_plane.facts(plugin=agent.plugin)]
        for once in ("incident_opened", "decision_made", "attempt_created", "apply_authorized", "attempt_succeeded"):
            assert told.count(once) == 1, (once, told)
        # A command that waits for its receipt comes again; one that is another would have another id.
        kinds = list({command.id: command.kind for command in agent.commands}.values())
        assert len(set(kinds)) == len(kinds), "no command was given twice"
    await rests(relay_plane)


def test_every_fact_has_a_listener() -> None:
    heard = {fact for facts in CONSUMERS.values() for fact in facts}
    assert heard == NAMES
