"""The supervisor killed at every step of a change, and started again: one slot, one word, whatever the moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prunella.v1 import agent_pb2 as pb
from tests.service.agent_gateway import AgentProcess, Gateway, Shop


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path))
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def agent(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    process = AgentProcess(gateway, tmp_path / "agent", gateway.shop.make("1.0.0"))
    yield process
    await process.kill()
    await gateway.until(lambda: not process.alive())


async def healthy(gateway: Gateway, release: str, generation: int) -> None:
    """Waits for a healthy beat of this release and generation after now."""
    seen = len(gateway.beats)
    wanted = (release, generation, pb.HEALTH_HEALTHY)
    await gateway.until(lambda: wanted in [(b.release, b.generation, b.health) for b in gateway.beats[seen:]])


async def dies_in_update(gateway: Gateway, agent: AgentProcess, step: str) -> pb.Command:
    """Has the supervisor die at a step of an update to 1.1.0, then starts it again."""
    await agent.start(failpoint=step)
    await healthy(gateway, "1.0.0", 0)
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    assert await agent.ended() == -9
    await agent.start()
    return update


@pytest.mark.parametrize("step", ["RECEIVED", "FETCHED", "STAGED", "PERMITTED"])
async def test_killed_before_the_switch_it_prepares_anew_and_asks_again(
    gateway: Gateway, agent: AgentProcess, step: str
) -> None:
    update = await dies_in_update(gateway, agent, step)
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    assert len(gateway.kinds("begin_apply")) == (2 if step == "PERMITTED" else 1)
    assert agent.current == "1.1.0" and agent.steps.count("SWITCHING") == 1
    await healthy(gateway, "1.1.0", 1)


@pytest.mark.parametrize("step", ["SWITCHING", "STOPPED", "POINTED", "STARTED", "SWITCHED"])
async def test_killed_between_switch_and_commit_it_goes_back_and_says_so(
    gateway: Gateway, agent: AgentProcess, step: str
) -> None:
    update = await dies_in_update(gateway, agent, step)
    said = ["APPLIED", "REVERTED"] if step == "SWITCHED" else ["REVERTED"]
    await gateway.until(lambda: gateway.outcomes(update.id) == said)
    last = gateway.results[-1]
    assert last.unsolicited and last.detail == "RESTARTED" and (last.release, last.generation) == ("1.0.0", 1)
    assert agent.current == "1.0.0"
    await healthy(gateway, "1.0.0", 0)
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["REVERTED"])


async def test_killed_after_the_commit_was_written_down_the_commit_stands(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start(failpoint="COMMITTED")
    await healthy(gateway, "1.0.0", 0)
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    assert await agent.ended() == -9
    await agent.start()
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])
    assert agent.current == "1.1.0"
    await healthy(gateway, "1.1.0", 1)


async def dies_in_config_update(gateway: Gateway, agent: AgentProcess, step: str) -> pb.Command:
    """Has the supervisor die at a step of a change of configuration, then starts it again."""
    await agent.start(failpoint=step)
    await healthy(gateway, "1.0.0", 0)
    change = gateway.send(gateway.config_update(b'{"a": 1}', 1))
    assert await agent.ended() == -9
    await agent.start()
    return change


@pytest.mark.parametrize("step", ["RECEIVED", "STAGED", "PERMITTED"])
async def test_killed_before_the_switch_of_configurations_it_prepares_anew(
    gateway: Gateway, agent: AgentProcess, step: str
) -> None:
    change = await dies_in_config_update(gateway, agent, step)
    await gateway.until(lambda: gateway.outcomes(change.id) == ["APPLIED"])
    await healthy(gateway, "1.0.0", 1)
    assert gateway.beats[-1].config_digest == change.digest
    assert agent.configured[-1] == '{"a":1}' and agent.steps.count("SWITCHING") == 1


@pytest.mark.parametrize("step", ["SWITCHING", "STOPPED", "POINTED", "STARTED", "SWITCHED"])
async def test_killed_between_switch_and_commit_the_old_configuration_is_back(
    gateway: Gateway, agent: AgentProcess, step: str
) -> None:
    change = await dies_in_config_update(gateway, agent, step)
    said = ["APPLIED", "REVERTED"] if step == "SWITCHED" else ["REVERTED"]
    await gateway.until(lambda: gateway.outcomes(change.id) == said)
    assert gateway.results[-1].unsolicited and gateway.results[-1].detail == "RESTARTED"
    await healthy(gateway, "1.0.0", 0)
    assert gateway.beats[-1].config_digest != change.digest and agent.configured[-1] == "{}"


@pytest.mark.parametrize("step", ["REVERTING", "REVERT_POINTED", "REVERT_STARTED", "REVERTED"])
async def test_killed_on_the_way_back_the_old_configuration_is_back(
    gateway: Gateway, agent: AgentProcess, step: str
) -> None:
    await agent.start(failpoint=step)
    await healthy(gateway, "1.0.0", 0)
    change = gateway.send(gateway.config_update(b'{"a": 1}', 1))
    await gateway.until(lambda: gateway.outcomes(change.id) == ["APPLIED"])
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
    assert await agent.ended() == -9
    await agent.start()
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])
    await healthy(gateway, "1.0.0", 0)
    assert gateway.beats[-1].config_digest != change.digest and agent.configured[-1] == "{}"


async def test_killed_after_the_commit_of_a_configuration_it_stays(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start(failpoint="COMMITTED")
    await healthy(gateway, "1.0.0", 0)
    change = gateway.send(gateway.config_update(b'{"a": 1}', 1))
    await gateway.until(lambda: gateway.outcomes(change.id) == ["APPLIED"])
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    assert await agent.ended() == -9
    await agent.start()
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])
    await healthy(gateway, "1.0.0", 1)
    assert gateway.beats[-1].config_digest == change.digest and agent.configured[-1] == '{"a":1}'


@pytest.mark.parametrize("step", ["REVERTING", "REVERT_POINTED", "REVERT_STARTED", "REVERTED"])
async def test_killed_on_the_way_back_it_ends_the_way_back(gateway: Gateway, agent: AgentProcess, step: str) -> None:
    await agent.start(failpoint=step)
    await healthy(gateway, "1.0.0", 0)
    update = gateway.send(gateway.update(gateway.shop.make("1.1.0"), 1))
    await gateway.until(lambda: gateway.outcomes(update.id) == ["APPLIED"])
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
    assert await agent.ended() == -9
    await agent.start()
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])
    assert gateway.results[-1].release == "1.0.0"
    assert agent.current == "1.0.0" and agent.steps.count("REVERTED") == 1
    await healthy(gateway, "1.0.0", 0)
