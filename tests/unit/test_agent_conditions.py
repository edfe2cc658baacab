"""What hinders an agent on its host is a condition until a check finds it gone; it ends nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from prunella_agent.clock import SystemClock
from prunella_agent.conditions import (
    MAX_CONDITIONS,
    MAX_TEXT,
    SUPERVISOR,
    Conditions,
    HostFault,
    check_program,
    check_room,
    classify,
)


class Watched(Conditions):
    """Counts how often something began or ended."""

    def __init__(self) -> None:
        self.changes = 0
        super().__init__(SystemClock(), self.changed)

    def changed(self) -> None:
        self.changes += 1


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EFBIG, "disk_full"),
        (errno.EROFS, "disk_read_only"), (errno.EIO, "disk_failing"), (errno.EACCES, "permission_denied"),
        (errno.EPERM, "permission_denied"), (errno.ENOENT, "file_missing"), (errno.EMFILE, "too_many_open_files"),
        (errno.ENFILE, "too_many_open_files"), (errno.ENOMEM, "out_of_memory"), (errno.EAGAIN, "out_of_memory"),
        (errno.ELOOP, "local_fault"),
    ],
)  # fmt: skip
def test_what_the_system_says_is_a_condition_with_a_subject(number: int, type_: str) -> None:
    found = classify(fault(number), "/var/lib/shop")
    of_process = type_ in {"too_many_open_files", "out_of_memory"}
    assert (found.type, found.subject) == (type_, SUPERVISOR if of_process else "/var/lib/shop")
    assert found.detail == os.strerror(number)


def test_texts_are_one_bounded_line() -> None:
    found = classify(OSError(errno.ENOSPC, "no\nspace\x00" + "x" * 1000), "/a\nb" + "y" * 1000)
    assert len(found.subject) <= MAX_TEXT and len(found.detail) <= MAX_TEXT
    assert "\n" not in found.subject + found.detail
    assert classify(OSError(), "x").detail


def test_a_fault_that_is_known_already_stays_what_it_is() -> None:
    known = HostFault("program_missing", "php", "it is not there")
    assert classify(known, "elsewhere") is known


def test_it_begins_once_and_ends_once(tmp_path: Path) -> None:
    conditions = Watched()
    assert not conditions and conditions.refusal() == ""
    for _ in range(3):
        conditions.note("the journal", fault(errno.ENOSPC), tmp_path)
    assert conditions.changes == 1
    assert conditions.refusal() == f"AGENT_DEGRADED: disk_full: {tmp_path}: No space left on device"
    first = conditions.messages()[0].since_time.ToNanoseconds()
    conditions.note("the journal", fault(errno.EROFS), tmp_path)
    (message,) = conditions.messages()
    assert (message.type, message.since_time.ToNanoseconds(), conditions.changes) == ("disk_read_only", first, 2)
    conditions.clear("the journal")
    conditions.clear("the journal")
    assert not conditions and conditions.changes == 3


def test_a_check_that_succeeds_ends_it_and_one_that_fails_keeps_it(tmp_path: Path) -> None:
    conditions, broken = Watched(), [True]

    def check() -> None:
        if broken[0]:
            raise fault(errno.ENOSPC)

    conditions.note("the journal", fault(errno.ENOSPC), tmp_path, check)
    conditions.note("a start", fault(errno.EMFILE), tmp_path)
    conditions.recheck()
    assert {one.type for one in conditions.messages()} == {"disk_full", "too_many_open_files"}
    broken[0] = False
    conditions.recheck()
    assert [one.type for one in conditions.messages()] == ["too_many_open_files"], "without a check it is not looked at"


def test_a_failure_goes_no_further_and_a_success_clears_it(tmp_path: Path) -> None:
    conditions = Watched()
    with conditions.watching("the state", tmp_path):
        raise fault(errno.EACCES)
    assert conditions.messages()[0].type == "permission_denied"
    with conditions.watching("the state", tmp_path):
        pass
    assert not conditions
    with pytest.raises(ValueError, match="ours"), conditions.watching("the state", tmp_path):
        raise ValueError("ours")
    assert not conditions, "what is no fault of the host is none"


def test_what_is_to_be_done_is_done_again_until_it_succeeds(tmp_path: Path) -> None:
    conditions, tries = Watched(), []

    def do() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise fault(errno.ENOSPC)

    conditions.keep("the socket", tmp_path, do)
    conditions.recheck()
    assert conditions
    conditions.recheck()
    assert not conditions and len(tries) == 3
    conditions.recheck()
    assert len(tries) == 3


def test_several_failures_of_one_cause_are_one_and_no_beat_carries_more_than_it_may(tmp_path: Path) -> None:
    conditions = Watched()
    for what in ("the journal", "the state", "the log"):
        conditions.note(what, fault(errno.ENOSPC), tmp_path)
    assert len(conditions.messages()) == 1
    for number in range(20):
        conditions.note(f"file {number}", fault(errno.ENOENT), tmp_path / str(number))
    assert len(conditions.messages()) == MAX_CONDITIONS
    assert conditions.messages()[0].type == "disk_full", "the oldest comes first"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    check_program(["sh", "-c", "true"], tmp_path)
    check_program([], tmp_path)
    (tmp_path / "run").write_text("#!/bin/sh\n")
    with pytest.raises(HostFault) as missing:
        check_program(["./run"], tmp_path)
    assert (missing.value.type, missing.value.subject) == ("program_missing", "./run")
    (tmp_path / "run").chmod(0o700)
    check_program(["./run"], tmp_path)
    with pytest.raises(HostFault):
        check_program(["no-such-interpreter-here"], tmp_path)


def test_room_is_looked_for_and_nothing_stays(tmp_path: Path) -> None:
    check_room(tmp_path, 4096)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        check_room(tmp_path / "gone", 1)
