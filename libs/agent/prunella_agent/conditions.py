"""What hinders the agent on its host right now: a full disk, a folder without rights, no descriptors, no interpreter.

Rule: a fault of the host is a condition, told with every beat until a check finds it gone; it never ends the supervisor
and never takes the plugin down. While there is one, what would change the plugin is refused with it as the reason.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock
from prunella_agent.text import clean_line

log = logging.getLogger("prunella_agent.conditions")

REASON = "AGENT_DEGRADED"
MAX_CONDITIONS = 8
MAX_TEXT = 256
# A start of the plugin needs about so many.
DESCRIPTORS = 8
TYPES = {
    errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EFBIG: "disk_full", errno.EROFS: "disk_read_only",
    errno.EIO: "disk_failing", errno.EACCES: "permission_denied", errno.EPERM: "permission_denied",
    errno.ENOENT: "file_missing", errno.ESTALE: "file_missing", errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files", errno.ENOMEM: "out_of_memory", errno.EAGAIN: "out_of_memory",
}  # fmt: skip
# Not about a folder or a program: the process itself has too little.
OF_PROCESS = frozenset({"too_many_open_files", "out_of_memory"})
SUPERVISOR = "the supervisor"


class HostFault(OSError):  # noqa: N818 - a fault of the host, which nobody here made
    """The host does not let the agent do something; `type` is the condition it makes."""

    def __init__(self, type_: str, subject: str, detail: str) -> None:
        super().__init__(f"{type_}: {subject}: {detail}")
        self.type, self.subject, self.detail = type_, subject, detail


@dataclass(slots=True)
class Condition:
    """One fault, since when (wall time, to show), and the check that raises OSError as long as it is there."""

    type: str
    subject: str
    detail: str
    since: datetime
    check: Callable[[], object] | None


class Conditions:
    """The conditions of one agent, by what it could not do. `on_change` is called when one begins or ends."""

    def __init__(self, clock: Clock, on_change: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self.on_change = on_change
        self._active: dict[str, Condition] = {}

    def __bool__(self) -> bool:
        """Whether anything hinders the agent."""
        return bool(self._active)

    def note(self, what: str, error: OSError, subject: Path | str, check: Callable[[], object] | None = None) -> None:
        """Something could not be done. Without a `check` the same thing done later, and `clear`, end the condition."""
        fault = classify(error, str(subject))
        known = self._active.get(what)
        since = known.since if known else self._clock.now()
        self._active[what] = Condition(fault.type, fault.subject, fault.detail, since, check)
        if known is None or (known.type, known.subject) != (fault.type, fault.subject):
            log.warning("%s failed: %s; the plugin runs on", what, fault)
            self.on_change()

    def clear(self, what: str) -> None:
        """It could be done again."""
        if self._active.pop(what, None) is not None:
            log.warning("%s works again", what)
            self.on_change()

    @contextmanager
    def watching(self, what: str, subject: Path | str, check: Callable[[], object] | None = None) -> Iterator[None]:
        """Does something that may fail on this host: a failure is noted and goes no further, a success clears it."""
        try:
            yield
        except OSError as error:
            self.note(what, error, subject, check)
        else:
            self.clear(what)

    def recheck(self) -> None:
        """Looks which conditions are still there."""
        for what, condition in list(self._active.items()):
            if condition.check is not None:
                with self.watching(what, condition.subject, condition.check):
                    condition.check()

    def keep(self, what: str, subject: Path | str, do: Callable[[], object]) -> None:
        """Does something that may fail on this host, and does it again with each look until it succeeds."""
        with self.watching(what, subject, do):
            do()

    def refusal(self) -> str:
        """Why nothing may be changed now; empty when it may."""
        for one in self._active.values():
            return f"{REASON}: {one.type}: {one.subject}: {one.detail}"
        return ""

    def messages(self) -> list[pb.AgentCondition]:
        """The conditions as a beat carries them; several failures of one cause are one."""
        found: dict[tuple[str, str], pb.AgentCondition] = {}
        for one in sorted(self._active.values(), key=lambda condition: condition.since):
            message = pb.AgentCondition(type=one.type, subject=one.subject, detail=one.detail)
            message.since_time.FromDatetime(one.since)
            found.setdefault((one.type, one.subject), message)
        return list(found.values())[:MAX_CONDITIONS]


def classify(error: OSError, subject: str) -> HostFault:
    """The fault that an error of the system is, about this folder, file or program."""
    if isinstance(error, HostFault):
        return error
    type_ = TYPES.get(error.errno or 0, "local_fault")
    subject = SUPERVISOR if type_ in OF_PROCESS else clean_line(subject, MAX_TEXT)
    return HostFault(type_, subject, clean_line(error.strerror or str(error), MAX_TEXT) or type(error).__name__)


def check_program(arguments: list[str], folder: Path) -> None:
    """Raises HostFault when the program of a command, or the interpreter that starts it, is not there."""
    for program in (sys.executable, *arguments[:1]):
        beside = str(folder / program) if os.sep in program else program
        if shutil.which(beside) is None:
            raise HostFault("program_missing", program, "it is not there, or may not be run")


def check_descriptors() -> None:
    """Raises OSError when there are too few descriptors left to start a program."""
    taken: list[int] = []
    try:
        for _ in range(DESCRIPTORS):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401 - those before are closed
    finally:
        for descriptor in taken:
            os.close(descriptor)


def check_room(folder: Path, size: int) -> None:
    """Raises OSError when a file of this size cannot be put into the folder."""
    trial = folder / "room.new"
    descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, max(size, 1))
    finally:
        os.close(descriptor)
        trial.unlink(missing_ok=True)
