"""Overview, figures, stories and the report on a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, Plane, Servers
from libs.common.clock import SystemClock
from prunella.v1 import events_pb2 as facts
from prunella.v1.events_pb2 import Event
from tests.service.cli_terminal import Terminal, cli_environment
from tests.service.projections_plane import hear
from tests.unit.healing_facts import INCIDENT, START, escalated, event, healing, opened, uid

SECOND = uid(2)


def lately(events: list[Event]) -> list[Event]:
    """The same facts, a minute ago."""
    shift = SystemClock().now() - timedelta(minutes=1) - START
    for told in events:
        for stamp in (
            told.time,
            told.incident_opened.first_bad_beat_time if told.HasField("incident_opened") else None,
        ):
            if stamp is not None:
                stamp.FromDatetime(stamp.ToDatetime(START.tzinfo) + shift)
    return events


@pytest.fixture(scope="module")
async def terminal(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        label = event(0, facts.PluginEnrolled(package="checkout", release="1.2.0", label="shop-7"), incident="")
        second = [opened(20, severity=facts.SEVERITY_HIGH, incident=SECOND), escalated(21, incident=SECOND)]
        await hear(plane, lately([label, *healing(), *second]))
        made = Terminal(cli_environment(tmp_path_factory.mktemp("state")))
        made.environ |= {"PRUNELLA_OPS_ADDRESS": plane.addresses["ops"], "PRUNELLA_KEY": plane.key}
        yield made
    finally:
        await plane.stop()
        await backing.discard()


async def test_the_overview_says_what_is_wrong_what_was_done_and_what_to_type(terminal: Terminal) -> None:
    answer = await terminal("overview")
    assert (answer.code, answer.err) == (0, "")
    assert "active incidents  1 high" in answer.out
    assert "shop-7: webhook_fail_rate, high" in answer.out
    assert "2 opened, 1 healed, 0 closed, 1 escalated" in answer.out
    assert f"prunella stories show {SECOND}" in answer.out
    assert "fleet  no data" in answer.out
    assert (await terminal("overview", "--json")).json["attention_by_kind"] == {"incident": "1"}


async def test_the_overview_is_looked_at_again_and_again(terminal: Terminal) -> None:
    process = await terminal.process("overview", "--watch", "--json")
    assert process.stdout
    try:
        for _ in range(2):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert json.loads(line)["recent"]["healed"] == "1"
    finally:
        process.terminate()
        await process.wait()


async def test_figures_stand_beside_their_targets(terminal: Terminal) -> None:
    answer = await terminal("kpis")
    assert answer.code == 0
    assert "100 %  (1 of 1)" in answer.out
    assert "> 95.0 % reached" in answer.out
    assert "9.0 s" in answer.out
    found = (await terminal("kpis", "--json")).json
    assert (found["success"]["value"], found["automatic_resolution"]["value"]) == (1.0, 1.0)


async def test_a_window_without_data_says_so_and_a_wrong_one_what_is_wrong(terminal: Terminal) -> None:
    empty = await terminal("kpis", "--since", "30d", "--until", "20d")
    assert empty.out.count("no data") >= 6
    wrong = await terminal("kpis", "--since", "1h", "--until", "1d")
    assert wrong.code == 1
    assert "end_time must be after start_time" in wrong.err
    assert (await terminal("kpis", "--since", "yesterday")).code == 2


async def test_stories_are_listed_and_told(terminal: Terminal) -> None:
    listed = await terminal("stories", "--state", "mitigated")
    assert "healed in 9.0 s by patch 1.2.0 → 1.2.3" in listed.out
    assert [one["state"] for one in (await terminal("stories", "--json")).json] == ["escalated", "mitigated"]
    told = await terminal("stories", "show", INCIDENT)
    assert "6/6 tests passed in 1.5 s" in told.out
    assert 'prunella rollback a1 --reason "…"' in told.out
    assert "shop-7: webhook_fail_rate (medium) · healed in 9.0 s" in told.out
    assert (await terminal("stories", "--state", "broken")).code == 1
    assert (await terminal("stories", "--severity", "broken")).code == 2


async def test_the_report_is_one_file_with_charts(terminal: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "week.html"
    answer = await terminal("report", "--since", "7d", "--out", str(out))
    assert (answer.code, answer.err) == (0, "")
    text = out.read_text()
    assert text.count("<svg") >= 4
    assert "http" not in text
    assert "healed in 9.0 s by patch 1.2.0 → 1.2.3" in text
    assert (await terminal("report", "--out", str(tmp_path / "no" / "where.html"))).code == 1
