"""kill -9 in the middle of a healing: the same outcome, and every fact has its effect exactly once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator

import pytest

from tests.chaos.conftest import World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

MOMENTS = [
    ("decider", "incident_opened"),
    ("patcher", "decision_made"),
    ("patcher", "attempt_created"),
    ("patcher", "apply_authorized"),
    ("patcher", "attempt_applied"),
    ("ingest", "attempt_staged"),
    ("ingest", "command_issued"),
    ("ingest", "attempt_applied"),
    ("ops", "attempt_applied"),
]


@pytest.fixture(autouse=True)
async def one_after_the_other(world: World) -> AsyncIterator[None]:
    """A plugin whose story is told costs the next one nothing."""
    yield
    await asyncio.gather(*(shop.stop() for shop in world.shops.values()))
    world.shops.clear()


async def healed(world: World, label: str) -> None:
    """The plugin runs the mended release, and the plane and the agent agree on it."""
    shop = world.shops[label]
    event = await world.told(shop, "incident_mitigated", 90.0)
    (succeeded,) = await world.facts(shop.plugin, "attempt_succeeded")
    assert succeeded.attempt_succeeded.to_release == "1.2.3"
    assert succeeded.attempt_succeeded.attempt == event.incident_mitigated.attempt
    assert shop.state()["release"] == "1.2.3"
    await world.comes_to_rest()


@pytest.mark.parametrize(("service", "moment"), MOMENTS)
async def test_a_service_killed_in_the_middle_changes_nothing(world: World, service: str, moment: str) -> None:
    label = f"{service}-{moment}".replace("_", "-")
    shop = await world.shop(label, "1.2.0")
    await world.told(shop, moment)
    await world.plane.watches[service].kill()
    await healed(world, label)


async def test_an_agent_killed_in_probation_takes_the_release_back_and_is_healed_by_the_next_round(
    world: World,
) -> None:
    shop = await world.shop("agent-in-probation", "1.2.0")
    await world.told(shop, "attempt_applied")
    await shop.kill_supervisor()
    await world.shop(shop.label, "1.2.0")
    rolled_back = await world.told(shop, "attempt_rolled_back", 60.0)
    assert rolled_back.attempt_rolled_back.dead_man, "the agent reverted by itself"
    await world.comes_to_rest(120.0)
    assert await world.facts(shop.plugin, "incident_escalated", "incident_mitigated")


async def test_an_agent_killed_before_its_permit_gets_its_command_again(world: World) -> None:
    shop = await world.shop("agent-before-permit", "1.2.0")
    await world.told(shop, "attempt_staged")
    await shop.kill_supervisor()
    late = await world.facts(shop.plugin, "apply_authorized")
    await world.shop(shop.label, "1.2.0")
    if late:
        # On a busy machine the permit was there first: it had switched, and takes that back, or it asks once more.
        await world.comes_to_rest(120.0)
        assert await world.facts(shop.plugin, "incident_escalated", "incident_mitigated")
        went_back = await world.facts(shop.plugin, "attempt_rolled_back")
        asked = await world.facts(shop.plugin, "apply_authorized")
        assert [event.attempt_rolled_back.dead_man for event in went_back] == [True] or len(asked) > len(late)
        return
    await healed(world, "agent-before-permit")


async def test_nats_restarted_in_the_middle_costs_latency_only(world: World) -> None:
    shop = await world.shop("nats-restarted", "1.2.0")
    await world.told(shop, "attempt_created")
    await kill_nats(world)
    await healed(world, "nats-restarted")


async def test_the_whole_nats_store_deleted_loses_nothing(world: World) -> None:
    shop = await world.shop("nats-emptied", "1.2.0")
    await world.told(shop, "incident_opened")
    await kill_nats(world, wipe=True)
    await healed(world, "nats-emptied")


async def kill_nats(world: World, *, wipe: bool = False) -> None:
    (watch,) = (watch for watch in world.plane._servers if watch.name == "nats")
    child = watch.server.child
    assert child is not None
    if wipe:
        # While it is stopped it cannot write back what is deleted under it.
        os.kill(child.pid, signal.SIGSTOP)
        shutil.rmtree(watch.server.store, ignore_errors=True)
    os.kill(child.pid, signal.SIGKILL)
    await asyncio.sleep(0)
