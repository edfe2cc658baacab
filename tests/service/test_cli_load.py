"""`prunella load`: what it says fits what the plane has, and nobody is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, Servers
from tests.service.cli_terminal import Terminal, cli_environment


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing, names=["ingest"])
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


@pytest.fixture
def terminal(plane: Plane, tmp_path: Path) -> Terminal:
    named = {f"PRUNELLA_{name.upper()}_ADDRESS": place for name, place in plane.addresses.items()}
    return Terminal({**cli_environment(tmp_path), **named, "PRUNELLA_KEY": plane.key})


async def test_beats_are_counted_as_the_plane_counted_them_and_every_agent_is_retired(
    plane: Plane, terminal: Terminal
) -> None:
    answer = await terminal("load", "--agents", "5", "--rate", "10", "--seconds", "2", "--json")
    assert answer.code == 0, answer.err
    figures: dict[str, Any] = answer.json
    assert 80 <= figures["beats_sent"] <= 105
    assert figures["beats_acknowledged"] == figures["beats_sent"]
    delays = figures["latency_ms"]
    assert 0 < delays["p50"] <= delays["p90"] <= delays["p99"] <= delays["max"]
    rows = await plane.sql(
        "SELECT p.state, u.sequence FROM ingest.plugins p JOIN ingest.plugin_state u USING (id)"
        " WHERE p.merchant = 'load'"
    )
    assert [row.state for row in rows] == ["retired"] * 5
    assert sum(row.sequence for row in rows) == figures["beats_sent"]


async def test_people_are_told_in_four_lines(terminal: Terminal) -> None:
    answer = await terminal("load", "--agents", "2", "--rate", "5", "--seconds", "1")
    assert answer.code == 0, answer.err
    assert "ms from due to durable" in answer.out
    assert "all held" in answer.out


async def test_a_plane_that_is_away_is_said_in_one_line(terminal: Terminal) -> None:
    answer = await terminal("load", "--agents", "1", "--seconds", "1", PRUNELLA_INGEST_ADDRESS="127.0.0.1:1")
    assert answer.code == 3
    assert len(answer.err.strip().splitlines()) == 1
