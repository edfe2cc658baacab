"""Simulated agents answer as the supervisor would: verified, permitted, once, and reverted without a commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.demo.simulated_agent import Identity, SimulatedAgent, Slot
from prunella.v1 import agent_pb2 as pb
from prunella_agent.session import open_channel
from tests.service.agent_gateway import Gateway, Shop


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path), interval=0.2)
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def agent(gateway: Gateway) -> AsyncIterator[SimulatedAgent]:
    keys = [key.hex() for key in gateway.shop.public]
    channel = open_channel(gateway.address)
    agent = SimulatedAgent(
        gateway.address, Identity("agent-1", "p1", "s1", keys, Slot("1.0.0", "d")), channel, package="tiny"
    )
    agent.start()
    await gateway.until(lambda: gateway.beats)
    yield agent
    await agent.stop()
    await channel.close()


def said(gateway: Gateway, command: pb.Command) -> list[tuple[int, bool]]:
    return [(result.outcome, result.unsolicited) for result in gateway.results if result.command == command.id]


async def applied(gateway: Gateway, *, dead_man: float = 60.0) -> pb.Command:
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1, dead_man))
    await gateway.until(lambda: gateway.outcomes(update.id))
    assert gateway.outcomes(update.id) == ["APPLIED"]
    return update


async def test_it_beats_at_the_interval_the_plane_sets_with_healthy_figures(
    gateway: Gateway, agent: SimulatedAgent
) -> None:
    await gateway.until(lambda: len(gateway.beats) > 5, 5)
    first, last = gateway.beats[0], gateway.beats[-1]
    assert (last.health, last.webhook_failures, last.release) == (pb.HEALTH_HEALTHY, 0, "1.0.0")
    assert last.webhook_attempts > first.webhook_attempts


async def test_an_update_is_applied_committed_and_beaten_with_its_generation(
    gateway: Gateway, agent: SimulatedAgent
) -> None:
    await applied(gateway)
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id))
    assert gateway.outcomes(commit.id) == ["COMMITTED"]
    await gateway.until(lambda: gateway.beats[-1].generation == 1)
    assert gateway.beats[-1].release == agent.identity.running.release == "1.1.0"


async def test_without_a_commit_it_goes_back_by_itself_and_the_first_receipt_stands(
    gateway: Gateway, agent: SimulatedAgent
) -> None:
    update = await applied(gateway, dead_man=0.3)
    await gateway.until(lambda: "REVERTED" in gateway.outcomes(update.id))
    assert (pb.COMMAND_OUTCOME_REVERTED, True) in said(gateway, update)
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id))
    assert gateway.outcomes(commit.id) == ["REVERTED"]
    assert agent.identity.running.release == "1.0.0"


async def test_a_denied_permit_changes_nothing(gateway: Gateway, agent: SimulatedAgent) -> None:
    gateway.grant = lambda _: pb.Permit(granted=False, gate="KILL_SWITCH")
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id))
    assert gateway.outcomes(update.id) == ["REFUSED"]
    assert agent.identity.running.release == "1.0.0"


async def test_an_altered_artifact_is_not_applied(gateway: Gateway, agent: SimulatedAgent) -> None:
    release = gateway.shop.make("1.1.0")
    release.artifact = release.artifact[:-1] + bytes([release.artifact[-1] ^ 1])
    update = gateway.send(gateway.update(release, 1))
    await gateway.until(lambda: gateway.outcomes(update.id))
    assert gateway.outcomes(update.id) == ["FAILED"]
    assert agent.identity.running.release == "1.0.0"


async def test_an_old_fence_is_refused_and_a_repeat_gets_the_same_receipt(
    gateway: Gateway, agent: SimulatedAgent
) -> None:
    old = gateway.command(pb.COMMAND_KIND_HEALTH_CHECK, 0)
    update = await applied(gateway)
    gateway.send(old)
    await gateway.until(lambda: gateway.outcomes(old.id))
    assert gateway.outcomes(old.id) == ["REFUSED"]
    before = len(said(gateway, update))
    gateway.send(update)
    await gateway.until(lambda: len(said(gateway, update)) > before)
    assert gateway.outcomes(update.id) == ["APPLIED"]
    assert len(gateway.kinds("begin_apply")) == 1


async def test_a_command_that_comes_again_while_it_is_carried_out_is_carried_out_once(
    gateway: Gateway, agent: SimulatedAgent
) -> None:
    gateway.grant = lambda _: None
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    gateway.send(update)
    gateway.send(update)
    await gateway.until(lambda: gateway.kinds("begin_apply"))
    gateway.grant = lambda _: pb.Permit(granted=True, permit="p")
    gateway.send(update)
    await gateway.until(lambda: gateway.outcomes(update.id), 15)
    assert "FENCE" not in {result.detail for result in gateway.results}
    assert gateway.outcomes(update.id)[0] in ("APPLIED", "REFUSED")


async def test_a_rollback_needs_no_permit(gateway: Gateway, agent: SimulatedAgent) -> None:
    await applied(gateway)
    asked = len(gateway.kinds("begin_apply"))
    rollback = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
    await gateway.until(lambda: gateway.outcomes(rollback.id))
    assert gateway.outcomes(rollback.id) == ["REVERTED"]
    assert len(gateway.kinds("begin_apply")) == asked
    assert agent.identity.running == Slot("1.0.0", "d")


def test_an_identity_survives_being_written_down() -> None:
    identity = Identity("agent-1", "p1", "s1", ["aa"], Slot("1.0.0", "d", 3), fence=7)
    assert Identity.decode(identity.encode()) == identity
    assert "s1" not in repr(identity)
