"""A disk that is full for a while: nothing half-written stays, and no way back is given up for an unwritten receipt."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import SystemClock
from prunella_agent.conditions import Conditions
from prunella_agent.journal import LONG, Journal
from prunella_agent.plugin_process import Health
from prunella_agent.receipts import Receipts
from prunella_agent.session import PermitResponse
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install

write = os.write


class Disk:
    """Half of the next line fits, then nothing, until there is room again."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        patch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.full:
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_half_a_line_is_taken_back_so_that_the_next_one_can_be_read(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write("RECEIVED", command="a", fence=1, message="m")
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        journal.write("RECEIVED", command="b", fence=2, message="m")
    assert journal.state.fence == 1
    disk.full = False
    journal.write("RECEIVED", command="c", fence=3, message="m")
    journal.close()
    assert list(Journal(tmp_path / "journal").state.received) == ["a", "c"]


def test_a_journal_that_cannot_be_shortened_stays_long_and_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "journal"
    path.write_text('{"step":"ACKNOWLEDGED","command":"c","outcome":1}\n' * (LONG + 1))
    disk.full = True
    journal = Journal(path)
    disk.full = False
    journal.write("RECEIVED", command="a", fence=9, message="m")
    journal.close()
    assert Journal(path).state.fence == 9


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


async def test_a_commit_that_cannot_be_written_down_is_none_and_the_way_back_needs_no_disk(
    tmp_path: Path, disk: Disk
) -> None:
    clock, journal, slots, plugin = SystemClock(), Journal(tmp_path / "journal"), Slots(tmp_path), PluginProcess()
    before = Install("a", "1.0.0", "d0", 0, ("python", "main.py"), (), "c.json")
    after = Install("b", "1.1.0", "d1", 1, ("python", "main.py"), (), "c.json")
    journal.write("INSTALLED", install=asdict(before))
    receipts = Receipts(journal, clock, lambda _result: None)
    conditions = Conditions(clock)
    switch = SlotSwitch(
        journal=journal,
        slots=slots,
        runner=plugin,
        receipts=receipts,
        clock=clock,
        beat=lambda: None,
        conditions=conditions,
    )
    command = pb.Command(id="u", attempt="t", generation=1, fence=1)
    command.dead_man_duration.FromMilliseconds(300)
    await switch.switch(command, after, PermitResponse(True, expires=clock.monotonic() + 5), Spans(clock, ""))
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        await switch.commit(pb.Command(id="c", attempt="t", generation=1, fence=2), Spans(clock, ""))
    deadline = clock.monotonic() + 10
    while plugin.runs != before and clock.monotonic() < deadline:  # the dead man's time passes on a full disk
        await clock.sleep(0.01)
    assert plugin.runs == before, "the way back needs no disk"
    assert journal.state.finals == {}
    assert [(one.type, one.subject) for one in conditions.messages()] == [("disk_full", str(journal.folder))]
    assert conditions.refusal().startswith("AGENT_DEGRADED: disk_full")
    disk.full = False
    while not journal.state.finals and clock.monotonic() < deadline:
        await clock.sleep(0.01)
    assert journal.state.finals == {1: "REVERTED"}
    assert plugin.runs == before
    await switch.stop()
    journal.close()
