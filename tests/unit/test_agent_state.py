"""The agent's state: whatever was written down last, there is one release to run and one receipt to send."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella_agent.journal import Journal, JournalBroken
from prunella_agent.state import Install, Probation, State, fold, recover

BASE = Install("a", "1.0.0", "d0", 0, ("python", "main.py"), (), "c.json")


def receipt(command: str, outcome: int) -> dict[str, Any]:
    return {"command": command, "outcome": outcome, "result": f"{command}:{outcome}"}


def lives(choices: list[int]) -> list[dict[str, Any]]:
    """A journal in which every entry may follow the one before it, chosen by numbers."""
    entries: list[dict[str, Any]] = [{"step": "INSTALLED", "install": asdict(BASE)}]
    generation = 0
    for choice in choices:
        state = fold(entries)
        assert state.running
        if state.revert:
            command = f"back-{state.revert.generation}"
            entries.append({"step": "REVERTED", "generation": state.revert.generation, **receipt(command, 3)})
        elif state.probation and choice % 3 == 0:
            generation = state.probation.after.generation
            entries.append({"step": "COMMITTED", "generation": generation, **receipt(f"commit-{generation}", 2)})
        elif state.probation and choice % 3 == 1 and not state.probation.switched:
            entries.append({"step": "SWITCHED", **receipt(state.probation.command, 1)})
        elif state.probation:
            generation = state.probation.after.generation
            target = asdict(state.probation.before)
            entry = {
                "step": "REVERTING",
                "target": target,
                "generation": generation,
                **receipt(f"back-{generation}", 3),
            }
            entries.append(entry)
        else:
            generation += 1
            other = "a" if state.running.slot == "b" else "b"
            after = replace(state.running, generation=generation)
            if choice % 2:
                after = replace(after, slot=other, release=f"1.{generation}.0", digest=f"d{generation}")
            name = f"update-{generation}"
            entries.append({"step": "RECEIVED", "command": name, "fence": generation, "message": name})
            probation = Probation(name, "t", generation, "", state.running, after)
            entries.append({"step": "SWITCHING", "probation": asdict(probation)})
    return entries


@given(st.lists(st.integers(0, 5), max_size=40))
def test_after_a_death_at_any_entry_exactly_one_install_is_to_run(choices: list[int]) -> None:
    entries = lives(choices)
    fence = 0
    for end in range(1, len(entries) + 1):
        state = fold(entries[:end])
        found = recover(state)
        ways = [
            found.finish_revert and found.finish_revert.target,
            found.revert_probation and found.revert_probation.before,
            found.run,
        ]
        assert len([way for way in ways if way]) == 1
        assert state.fence >= fence
        fence = state.fence
        assert not (state.revert or state.probation) or found.run is None


@given(st.lists(st.integers(0, 5), max_size=40))
def test_a_snapshot_is_worth_all_entries_before_it(choices: list[int]) -> None:
    state = fold(lives(choices))
    assert fold([json.loads(json.dumps(state.snapshot()))]) == state


@given(st.lists(st.integers(0, 5), max_size=40))
def test_nothing_follows_a_revert_and_every_way_back_leads_to_files_that_are_there(choices: list[int]) -> None:
    entries = lives(choices)
    reverted: set[int] = set()
    slots: dict[str, str] = {}
    for end in range(1, len(entries) + 1):
        state = fold(entries[:end])
        if state.active:
            slots[state.active.slot] = state.active.digest
        reverted |= {generation for generation, final in state.finals.items() if final == "REVERTED"}
        assert all(state.finals[generation] == "REVERTED" for generation in reverted & state.finals.keys())
        for way in (state.running, state.previous, state.probation and state.probation.before):
            assert way is None or slots[way.slot] == way.digest


def test_a_commit_after_a_revert_changes_nothing() -> None:
    probation = Probation("u", "t", 1, "", BASE, replace(BASE, generation=1, slot="b"))
    back = {"step": "REVERTED", "generation": 1, **receipt("back", 3)}
    installed = {"step": "INSTALLED", "install": asdict(BASE)}
    late = [
        {"step": "SWITCHING", "probation": asdict(probation)},
        {"step": "COMMITTED", "generation": 1, **receipt("c", 2)},
    ]
    assert fold([installed, back, *late]).finals == {1: "REVERTED"}
    assert fold([installed, *late, back]).finals == {1: "REVERTED"}


def test_receipts_are_sent_until_acknowledged_and_stored_for_repeats() -> None:
    entries = [
        {"step": "RECEIVED", "command": "c", "fence": 3, "message": "m"},
        {"step": "RECEIPT", **receipt("c", 4)},
    ]
    state = fold(entries)
    assert (state.received, state.receipts, state.unacknowledged) == ({}, {"c": "c:4"}, {"c/4": "c:4"})
    state = fold([*entries, {"step": "ACKNOWLEDGED", "command": "c", "outcome": 4}])
    assert (state.receipts, state.unacknowledged, state.fence) == ({"c": "c:4"}, {}, 3)


def test_what_is_kept_is_bounded() -> None:
    state = fold({"step": "RECEIPT", **receipt(str(n), 4)} for n in range(500))
    assert len(state.receipts) == len(state.unacknowledged) == 64
    assert "499" in state.receipts


def test_a_torn_last_line_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.write("RECEIVED", command="c", fence=7, message="m")
    journal.close()
    whole = path.read_bytes()
    for torn in (b'{"step":"RECEI', b'{"step":"RECEI\n', b"\0\0\0\0"):
        path.write_bytes(whole + torn)
        journal = Journal(path)
        assert journal.state.fence == 7
        assert path.read_bytes() == whole
        journal.close()


def test_a_broken_line_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"step":"X"}\nrubbish\n{"step":"Y"}\n')
    with pytest.raises(JournalBroken, match="line 2"):
        Journal(path)


def test_a_long_journal_is_shortened_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"step":"ACKNOWLEDGED","command":"c","outcome":1}\n' * 1999)
    journal = Journal(path)
    journal.write("RECEIVED", command="c", fence=7, message="m")
    before: State = journal.write("RECEIPT", **receipt("c", 4))
    journal.close()
    assert len(path.read_text().splitlines()) == 1
    assert Journal(path).state == before
