"""Errors of a real plugin process, through its supervisor, to a plane that comes and goes: none lost, none doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.agent_gateway import PLUGIN_MAIN, AgentProcess, Gateway, Shop

BROKEN_MAIN = PLUGIN_MAIN.replace(
    'prunella.webhook(ok=False, sample="s")',
    'prunella.error(ValueError(f"order {_} has no cart"), severity="high", order=_)',
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    plane = Gateway(Shop(tmp_path))
    plane.acknowledge_errors = True
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def agent(gateway: Gateway, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    process = AgentProcess(gateway, tmp_path / "agent", gateway.shop.make("1.0.0", BROKEN_MAIN))
    yield process
    await process.kill()
    await gateway.until(lambda: not process.alive())


def counted(gateway: Gateway) -> dict[str, int]:
    """The highest figure of each counter."""
    figures: dict[str, int] = {}
    for message in gateway.kinds("errors"):
        assert len(message.errors.reports) <= 100
        for report in message.errors.reports:
            figures[report.id] = max(figures.get(report.id, 0), report.occurrences)
    return figures


async def test_a_flood_is_one_counter_also_while_the_plane_is_away(gateway: Gateway, agent: AgentProcess) -> None:
    await agent.start()
    await gateway.until(lambda: gateway.beats and gateway.beats[-1].health == 1)
    await agent.post(5000)
    await gateway.until(lambda: list(counted(gateway).values()) == [5000])
    await gateway.stop()
    await agent.post(3000)
    await gateway.start()
    await gateway.until(lambda: list(counted(gateway).values()) == [8000], 30)
    report = gateway.kinds("errors")[-1].errors.reports[0]
    assert (report.type, report.severity, report.context["order"]) == ("ValueError", "high", "2999")
    assert len(gateway.kinds("errors")) < 20, "at most one message a second"
    await gateway.until(lambda: gateway.beats[-1].errors == 8000)
