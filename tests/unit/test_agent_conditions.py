"""What hinders an agent on its host: one condition for each cause, told until a check finds it gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella_agent.conditions import (
    MAX_CONDITIONS,
    MAX_TEXT,
    SUPERVISOR,
    Conditions,
    HostFault,
    check_program,
    classify,
)

PACKAGES = [path for path in sys.path if path]


class Clock:
    """Wall time that moves by a minute with each look."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Host:
    """Conditions, and how often their change was told."""

    def __init__(self) -> None:
        self.changes = 0
        self.conditions = Conditions(Clock(), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(one.type, one.subject) for one in self.conditions.messages()]


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def limited(limit: str, most: str, program: str) -> str:
    """What a program prints that runs under a limit of its own."""
    begin = f"""
import errno, os, resource, sys
sys.path[:0] = {PACKAGES!r}
from pathlib import Path
from prunella_agent import conditions
resource.setrlimit(resource.RLIMIT_{limit}, ({most}, resource.getrlimit(resource.RLIMIT_{limit})[1]))
"""
    command = [sys.executable, "-c", begin + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EFBIG, "disk_full"),
        (errno.EROFS, "disk_read_only"), (errno.EIO, "disk_failing"), (errno.EACCES, "permission_denied"),
        (errno.EPERM, "permission_denied"), (errno.ENOENT, "file_missing"), (errno.ESTALE, "file_missing"),
        (errno.EISDIR, "local_fault"), (0, "local_fault"),
    ],
)  # fmt: skip
def test_an_error_about_a_folder_names_it(number: int, type_: str) -> None:
    fault = classify(error(number), "/srv/agent")
    assert (fault.type, fault.subject, fault.detail) == (type_, "/srv/agent", os.strerror(number))


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (errno.EMFILE, "too_many_open_files"), (errno.ENFILE, "too_many_open_files"),
        (errno.ENOMEM, "out_of_memory"), (errno.EAGAIN, "out_of_memory"),
    ],
)  # fmt: skip
def test_what_the_process_lacks_is_not_the_folders_fault(number: int, type_: str) -> None:
    assert (classify(error(number), "/srv/agent").type, classify(error(number), "/srv/agent").subject) == (
        type_,
        SUPERVISOR,
    )


def test_what_a_path_says_is_one_short_line() -> None:
    fault = classify(OSError(errno.ENOSPC, "no\nspace\0 \ud800"), "/srv/\x1b[31m\n" + "x" * 1000)
    for text in (fault.subject, fault.detail):
        assert text.isprintable() and text.encode() and len(text) <= MAX_TEXT


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert classify(OSError(), "/srv").detail == "OSError"


def test_a_condition_begins_once_and_keeps_the_time_of_its_begin() -> None:
    host = Host()
    for _ in range(3):
        host.conditions.note("the journal", error(errno.ENOSPC), "/srv")
    (told,) = host.conditions.messages()
    assert host.changes == 1
    assert told.since_time.ToDatetime(UTC) == datetime(2026, 3, 1, 0, 1, tzinfo=UTC)
    host.conditions.clear("the journal")
    host.conditions.clear("the journal")
    assert (host.changes, host.told, bool(host.conditions)) == (2, [], False)


def test_another_cause_of_the_same_failure_is_told() -> None:
    host = Host()
    host.conditions.note("the journal", error(errno.ENOSPC), "/srv")
    host.conditions.note("the journal", error(errno.EROFS), "/srv")
    assert (host.changes, host.told) == (2, [("disk_read_only", "/srv")])


def test_several_failures_of_one_cause_are_one_condition_until_the_last_has_ended() -> None:
    host = Host()
    host.conditions.note("the journal", error(errno.ENOSPC), "/srv")
    host.conditions.note("the state file", error(errno.ENOSPC), "/srv")
    assert host.told == [("disk_full", "/srv")]
    host.conditions.clear("the journal")
    assert host.told == [("disk_full", "/srv")]
    host.conditions.clear("the state file")
    assert host.told == []


def test_a_failure_goes_no_further_and_a_success_ends_it() -> None:
    host = Host()
    with host.conditions.watching("the state file", "/srv"):
        raise error(errno.EROFS)
    assert host.told == [("disk_read_only", "/srv")]
    with host.conditions.watching("the state file", "/srv"):
        pass
    assert host.told == []


def test_a_mistake_of_the_agents_own_is_no_fault_of_the_host() -> None:
    host = Host()
    with pytest.raises(ValueError, match="mine"), host.conditions.watching("the state file", "/srv"):
        raise ValueError("mine")
    assert host.told == []


def test_what_must_be_done_is_tried_with_each_look_until_it_succeeds() -> None:
    host, left, done = Host(), [error(errno.ENOSPC), error(errno.ENOSPC)], []

    def save() -> None:
        if left:
            raise left.pop()
        done.append(1)

    host.conditions.keep("saving the identity", "/srv", save)
    host.conditions.recheck()
    assert (host.told, done) == ([("disk_full", "/srv")], [])
    host.conditions.recheck()
    assert (host.told, done) == ([], [1])
    host.conditions.recheck()
    assert done == [1], "once is enough"


def test_a_failure_without_a_check_ends_only_by_being_done() -> None:
    host = Host()
    host.conditions.note("the state file", error(errno.ENOSPC), "/srv")
    host.conditions.recheck()
    assert host.told == [("disk_full", "/srv")]


def test_a_refusal_names_the_condition_its_place_and_what_the_system_said() -> None:
    host = Host()
    assert host.conditions.refusal() == ""
    host.conditions.note("the journal", error(errno.ENOSPC), "/srv")
    assert host.conditions.refusal() == "AGENT_DEGRADED: disk_full: /srv: No space left on device"


def test_no_more_conditions_are_told_than_a_beat_may_have_and_the_oldest_stay() -> None:
    host = Host()
    for number in range(2 * MAX_CONDITIONS):
        host.conditions.note(f"file {number}", error(errno.EACCES), f"/srv/{number:02}")
    assert host.told == [("permission_denied", f"/srv/{number:02}") for number in range(MAX_CONDITIONS)]


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0, errno.ENOSPC, errno.EROFS, errno.EMFILE])), max_size=30
)


@given(STEPS)
def test_whatever_fails_and_works_again_what_is_told_is_what_failed_last(steps: list[tuple[str, int]]) -> None:
    host, failing = Host(), dict[str, tuple[str, str]]()
    for what, number in steps:
        changes, before = host.changes, failing.get(what)
        with host.conditions.watching(what, f"/srv/{what}"):
            if number:
                raise error(number)
        if number:
            fault = classify(error(number), f"/srv/{what}")
            failing[what] = (fault.type, fault.subject)
        else:
            failing.pop(what, None)
        assert host.changes - changes == (before != failing.get(what)), "each change is told, and nothing else"
    assert set(host.told) == set(failing.values())
    assert bool(host.conditions) == bool(host.conditions.refusal()) == bool(failing)


def test_a_program_that_is_not_there_or_may_not_be_run_is_missing(tmp_path: Path) -> None:
    with pytest.raises(HostFault) as missing:
        check_program(["./run"], tmp_path)
    assert (missing.value.type, missing.value.subject) == ("program_missing", "./run")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    with pytest.raises(HostFault):
        check_program(["./run"], tmp_path)
    (tmp_path / "run").chmod(0o755)
    check_program(["./run"], tmp_path)
    check_program([], tmp_path)


def test_an_interpreter_that_is_gone_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(HostFault, match="program_missing"):
        check_program(["sh"], tmp_path)


def test_too_few_descriptors_for_a_start_are_noticed_and_none_is_kept() -> None:
    program = """
try:
    conditions.check_descriptors()
except OSError as error:
    print(errno.errorcode[error.errno])
os.close(os.open(os.devnull, os.O_RDONLY))
"""
    assert limited("NOFILE", "8", program) == "EMFILE"
    assert limited("NOFILE", "64", program) == ""


def test_a_folder_without_room_is_noticed_and_the_trial_does_not_stay(tmp_path: Path) -> None:
    program = f"""
for size in (100, 100_000):
    try:
        conditions.check_room(Path({str(tmp_path)!r}), size)
        print("room")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    assert limited("FSIZE", "4096", program).split() == ["room", "EFBIG"]
    assert list(tmp_path.iterdir()) == []
