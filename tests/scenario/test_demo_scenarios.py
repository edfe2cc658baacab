"""The scenarios of single plugins, played as `make demo` plays them: real processes, a fresh plane, one document."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240
ENDS = {
    "heal_patch": "success, mitigated",
    "staging_refuses": "staging_failed, success, mitigated",
    "bad_patch_rolled_back": "rolled_back, success, mitigated",
    "plugin_down": "success, mitigated",
    "silent_plugin": "a person is asked",
    "disk_full": "a person is asked, closed",
    "flapping": "a person is asked, closed, closed, closed, closed",
    "away": "a person is asked, closed",
    "kill_switch": "held, success, mitigated",
    "config_fix": "success, mitigated",
    "dead_man": "rolled_back by the agent, success, mitigated",
    "error_resolved": "resolved",
    "error_three_attempts": "resolved",
    "worker_killed": "resolved",
    "error_escalated": "escalated",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 30)]


def left(folder: Path) -> list[str]:
    """Command lines of processes that still have to do with the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            inherited = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words or str(folder) in inherited:
            found.append(words)
    return found


@pytest.fixture(scope="module")
async def played() -> AsyncIterator[dict[str, Any]]:
    """The document of one run of everything, with the exit status and the narration beside."""
    folder = Path(tempfile.mkdtemp(prefix="prunella-demo-"))
    folder.chmod(0o711)  # PostgreSQL may run as somebody else
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.demo", *ENDS, cwd=ROOT,
        env=os.environ | {"PRUNELLA_STATE": str(folder / "state")},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            output, narration = await process.communicate()
        document: dict[str, Any] = json.loads(output)
        yield document | {"status": process.returncode, "narration": narration.decode(), "left": left(folder)}
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def story(played: dict[str, Any], scenario: dict[str, Any]) -> str:
    """What was told about one scenario and its plugin; all of it would hide it."""
    words = (scenario["name"], f"{scenario['plugin']} ", "plane ")
    lines = [line for line in played["narration"].splitlines() if any(word in line for word in words)]
    return "\n".join([str(scenario), *lines])


@pytest.mark.parametrize("name", ENDS)
async def test_a_scenario_ends_as_it_must(played: dict[str, Any], name: str) -> None:
    (scenario,) = [found for found in played["scenarios"] if found["name"] == name]
    assert scenario["outcome"] == ENDS[name], story(played, scenario)
    assert scenario["ok"], story(played, scenario)


async def test_every_healing_is_one_complete_trace(played: dict[str, Any]) -> None:
    traced = {found["name"]: found["trace_complete"] for found in played["scenarios"]}
    # The dead say nothing more, neither the plugin that fell silent nor the worker that was killed; what people mend on
    # a host is no step of the plane's.
    untraced = {"silent_plugin", "worker_killed", "disk_full", "flapping", "away"}
    assert traced == {name: name not in untraced for name in ENDS}, [s["notes"] for s in played["scenarios"]]
    assert len({found["trace_id"] for found in played["scenarios"]}) == len(ENDS)


async def test_what_tools_tried_is_told(played: dict[str, Any]) -> None:
    notes = {found["name"]: found["notes"] for found in played["scenarios"]}
    assert notes["error_resolved"] == ["try 1: completed"]
    assert [note.split()[2] for note in notes["error_three_attempts"]] == ["retrying", "retrying", "completed"]
    assert "died under token" in notes["worker_killed"][0]
    assert notes["error_escalated"][-1] == "tried: relay_timeout"


async def test_nothing_is_lost_and_every_acknowledged_beat_is_stored(played: dict[str, Any]) -> None:
    beats = played["beats"]
    assert played["lost"] == 0, played["narration"]
    assert 0 < beats["acknowledged"] <= beats["stored"] <= beats["sent"]


async def test_figures_stories_and_audit_log_agree_with_what_was_played(played: dict[str, Any]) -> None:
    assert played["different"] == []
    assert played["audit_entries"] >= sum(played["facts"].values()) > 0
    ended = [found["outcome"] for found in played["scenarios"] if found.get("incident")]
    kpis = played["kpis"]
    assert int(kpis["incidents_ended"]["mitigated"]) >= sum(outcome.endswith("mitigated") for outcome in ended) > 0
    assert kpis["success"]["value"] == int(kpis["success"]["numerator"]) / int(kpis["success"]["denominator"])
    assert kpis["time_to_repair"]["met"]


async def test_the_run_takes_less_than_four_minutes_and_says_so_in_its_status(played: dict[str, Any]) -> None:
    assert played["duration_s"] < SECONDS
    assert played["status"] == 0, [found["name"] for found in played["scenarios"] if not found["ok"]]


async def test_silence_and_absence_are_told_within_two_minutes_and_a_bad_beat_or_an_error_within_two_seconds(
    played: dict[str, Any],
) -> None:
    detected = {found["name"]: found["detect_s"] for found in played["scenarios"]}
    # Twenty seconds from its last beat, which was at most a beat before it was stopped.
    assert 18 < detected.pop("away") < 120
    assert detected.pop("silent_plugin") < 120
    assert max(detected.values()) < 2


async def test_no_process_of_the_demo_outlives_it(played: dict[str, Any]) -> None:
    assert played["left"] == []
