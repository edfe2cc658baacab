"""A change of configuration goes the way of an update: verified, permitted, tried, kept or taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent import configurations
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


async def healthy(gateway: Gateway, release: str, generation: int = 0) -> None:
    """Waits for a healthy beat of a release after now."""
    seen = len(gateway.beats)
    await gateway.until(
        lambda: any(
            (b.release, b.generation, b.health) == (release, generation, pb.HEALTH_HEALTHY)
            for b in gateway.beats[seen:]
        )
    )


async def test_a_configuration_is_tried_like_a_release(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    before = gateway.beats[-1].config_digest
    change = gateway.send(gateway.config_update(b'{"a": 1}', 1))
    await gateway.until(lambda: gateway.outcomes(change.id) == ["APPLIED"])
    await healthy(gateway, "1.0.0", 1)
    assert gateway.beats[-1].config_digest == change.digest != before
    assert agent.configured[-1] == '{"a":1}'
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 1))
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])
    await healthy(gateway, "1.0.0", 0)
    assert gateway.beats[-1].config_digest == before


async def test_a_configuration_edited_in_place_is_told_and_survives_the_try_of_another(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    first = gateway.send(gateway.config_update(b'{"a": 1}', 1))
    await gateway.until(lambda: gateway.outcomes(first.id) == ["APPLIED"])
    commit = gateway.send(gateway.command(pb.COMMAND_KIND_COMMIT, 1))
    await gateway.until(lambda: gateway.outcomes(commit.id) == ["COMMITTED"])
    (used,) = [path for path in (agent.folder / "configs").iterdir() if path.read_bytes() == b'{"a":1}']
    used.write_text('{"a": 2}')
    edited = configurations.describe(b'{"a": 2}', package="tiny", version="x").digest
    await gateway.until(lambda: gateway.beats[-1].config_digest == edited)
    again = gateway.send(gateway.config_update(b'{"a": 1}', 2))
    await gateway.until(lambda: gateway.outcomes(again.id) == ["APPLIED"])
    assert agent.configured[-1] == '{"a":1}'
    back = gateway.send(gateway.command(pb.COMMAND_KIND_ROLLBACK, 2))
    await gateway.until(lambda: gateway.outcomes(back.id) == ["REVERTED"])
    await healthy(gateway, "1.0.0", 1)
    assert agent.configured[-1] == '{"a": 2}', "what ran before runs again, as it was"


async def test_a_configuration_without_every_signature_or_for_another_is_refused(
    gateway: Gateway, agent: AgentProcess
) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    good = gateway.config_update(b'{"a": 1}', 1)
    one_key = configurations.describe(b'{"a": 1}', package="tiny", version="1")
    wrong: dict[str, dict[str, Any]] = {
        "SIGNATURE_MISSING": {"envelope": configurations.sign(one_key, gateway.shop.private[:1])},
        "DIGEST_MISMATCH": {"config": b'{"a": 2}'},
        "CONFIG_MISMATCH": {"digest": "0" * 64},
        "ENVELOPE_MALFORMED": {"envelope": gateway.shop.make("1.1.0").envelope},
        "CONFIG_MALFORMED": {"config": b"[]"},
    }
    commands = {}
    for reason, change in wrong.items():
        given: dict[str, Any] = {"envelope": good.envelope, "config": good.config, "digest": good.digest}
        command = gateway.command(good.kind, 1, **given | change)
        commands[reason] = gateway.send(command)
        await gateway.until(lambda command=command: gateway.outcomes(command.id) == ["FAILED"])  # type: ignore[misc]
        assert gateway.results[-1].detail.startswith(reason)
    for other in (
        gateway.config_update(b'{"a": 1}', 1, package="other"),
        gateway.config_update(b'{"a": 1}', 1, plugin="p2"),
    ):
        gateway.send(other)
        await gateway.until(lambda other=other: gateway.outcomes(other.id) == ["FAILED"])  # type: ignore[misc]
        assert gateway.results[-1].detail.startswith("CONFIG_MISMATCH")
    mine = gateway.send(gateway.config_update(b'{"a": 1}', 1, plugin="p1"))
    await gateway.until(lambda: gateway.outcomes(mine.id) == ["APPLIED"])
    assert len(agent.configured) == 2


async def test_a_configuration_without_a_commit_in_time_is_taken_back(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await healthy(gateway, "1.0.0")
    before = gateway.beats[-1].config_digest
    change = gateway.send(gateway.config_update(b'{"a": 1}', 1, dead_man=1.5))
    await gateway.until(lambda: gateway.outcomes(change.id) == ["APPLIED", "REVERTED"])
    assert gateway.results[-1].detail == "DEAD_MAN"
    await healthy(gateway, "1.0.0", 0)
    assert gateway.beats[-1].config_digest == before
    assert agent.configured == ["{}", '{"a":1}', "{}"]
