"""A host that sleeps, and a supervisor that is stopped: what counts on the clock, and what is said at parting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import SystemClock
from prunella_agent.conditions import Conditions
from prunella_agent.journal import Journal
from prunella_agent.options import LONGEST_ABSENCE, parse
from prunella_agent.plugin_process import Health
from prunella_agent.receipts import Receipts
from prunella_agent.session import PermitResponse
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install

OPTIONS = ["--plane", "127.0.0.1:1", "--folder", "agent", "--package", "tiny"]
BEFORE = Install("a", "1.0.0", "d0", 0, ("python", "main.py"), (), "c.json")
AFTER = Install("b", "1.1.0", "d1", 1, ("python", "main.py"), (), "c.json")


class SuspendedClock:
    """The clock of a host that may be suspended: its time goes on, and no sleep notices before it is over."""

    def __init__(self) -> None:
        self.suspended = 0.0
        self.asleep = asyncio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.suspended

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await asyncio.sleep(seconds)


class PluginProcess:
    """Runs nothing, and always well."""

    held_up = False
    runs: Install | None = None

    async def start(self, install: Install) -> None:
        self.runs = install

    async def stop(self) -> None:
        pass

    async def wait_started(self, _seconds: float) -> Health:
        return Health.HEALTHY


class Host:
    """An agent with a release in place, on a host that may be suspended."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.plugin = SuspendedClock(), PluginProcess()
        self.journal = Journal(folder / "journal")
        self.journal.write("INSTALLED", install=asdict(BEFORE))
        self.results: list[pb.CommandResult] = []
        self.switch = SlotSwitch(
            journal=self.journal,
            slots=Slots(folder),
            runner=self.plugin,
            receipts=Receipts(self.journal, self.clock, self.results.append),
            clock=self.clock,
            beat=lambda: None,
            conditions=Conditions(self.clock),
        )

    async def update(self, *, dead_man: int, permit: float) -> None:
        """Switches under a permit that holds for so many seconds."""
        command = pb.Command(id="u", attempt="t", generation=1, fence=1)
        command.dead_man_duration.FromSeconds(dead_man)
        answer = PermitResponse(True, expires=permit)
        await self.switch.switch(command, AFTER, answer, Spans(self.clock, ""))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.switch.stop()
    made.journal.close()


def test_the_clock_of_deadlines_goes_on_while_the_host_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    # As the kernel counts: the one stands still while the host sleeps, the other does not.
    readings = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 3700.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: readings[clock])
    monkeypatch.setattr(time, "monotonic", lambda: readings[time.CLOCK_MONOTONIC])
    assert SystemClock().monotonic() == 3700.0


@pytest.mark.parametrize("meanwhile", [False, True], ids=["before it sleeps", "while it sleeps"])
async def test_a_dead_man_does_not_oversleep_a_suspended_host(host: Host, *, meanwhile: bool) -> None:
    await host.update(dead_man=3600, permit=host.clock.monotonic() + 5)
    assert host.plugin.runs == AFTER
    if meanwhile:
        await host.clock.asleep.wait()
    host.clock.suspended = 3600.0
    deadline = time.monotonic() + 20
    while host.plugin.runs != BEFORE and time.monotonic() < deadline:
        await host.clock.sleep(0.02)
    assert host.plugin.runs == BEFORE
    assert host.journal.state.finals == {1: "REVERTED"}
    assert [(one.outcome, one.detail) for one in host.results][-1] == (pb.COMMAND_OUTCOME_REVERTED, "DEAD_MAN")


async def test_a_permit_is_stale_after_the_host_slept_over_it(host: Host) -> None:
    expires = host.clock.monotonic() + 5
    host.clock.suspended = 6.0
    await host.update(dead_man=60, permit=expires)
    assert host.plugin.runs is None, "nothing was switched"
    assert [(one.outcome, one.detail) for one in host.results] == [(pb.COMMAND_OUTCOME_REVERTED, "PERMIT_STALE")]


def test_who_names_no_time_says_none() -> None:
    assert parse(OPTIONS).back_within == 0.0


@pytest.mark.parametrize("seconds", ["0", "0.5", "300", str(LONGEST_ABSENCE)])
def test_a_planned_stop_may_last_a_week(seconds: str) -> None:
    assert parse([*OPTIONS, "--back-within", seconds]).back_within == float(seconds)


@pytest.mark.parametrize("seconds", ["-1", str(LONGEST_ABSENCE + 1), "inf", "nan", "soon"])
def test_what_is_no_time_or_longer_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*OPTIONS, "--back-within", seconds])
    assert "--back-within" in capsys.readouterr().err
