"""Becomes another program that cannot outlive its parent: `python -I -S launch.py PARENT DEATH USER -- program …`.

Rule: whatever happens to the parent, kill -9 included, the program gets the signal DEATH. The kernel does it where it
can (Linux); the request is made after the change of user, which would clear it, and checked against a parent that died
in between. Elsewhere this process stays, watches its parent, and passes signals on. The program leads its own session,
so that a Ctrl-C at the terminal reaches only the parent. Only the standard library is used, and little of it: this
costs a few milliseconds before each start, and spares the parent a fork with its threads.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from types import FrameType

# Loaded now: another user may not be able to read this Python's own files.
PRCTL = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None
PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 0.5


def change_user(user: str) -> None:
    """Becomes `uid:gid` with no other groups; "-" changes nothing."""
    if user == "-":
        return
    uid, gid = (int(part) for part in user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(parent: int, death: int) -> bool:
    """Asks the kernel for the signal; False where it has no such service. Leaves at once when the parent is gone."""
    if PRCTL is None or PRCTL(PR_SET_PDEATHSIG, death, 0, 0, 0) != 0:
        return False
    if parent and os.getppid() != parent:
        os._exit(1)
    return True


def watch(command: list[str], parent: int, death: int) -> int:
    """Starts the program as a child and ends it when the parent has gone; its exit status."""
    child = os.posix_spawnp(command[0], command, os.environ)

    def forward_signal(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, forward_signal)
    signalled = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if not signalled and os.getppid() != parent:
            signalled = True
            os.kill(child, death)
        time.sleep(WATCH_SECONDS / 10 if signalled else WATCH_SECONDS)


def main(arguments: list[str]) -> int:
    """Never returns when the kernel watches the parent: this process is the program then."""
    parent, death, user = int(arguments[0]), int(arguments[1]), arguments[2]
    command = arguments[arguments.index("--") + 1 :]
    with contextlib.suppress(PermissionError):
        os.setsid()  # refused to a process that leads its group already
    change_user(user)
    os.umask(0o077)
    # The variable asks for what other systems need, where the kernel could do it: so that it can be tried.
    if not os.environ.pop("PRUNELLA_WATCH_PARENT", "") and die_with_parent(parent, death):
        os.execvp(command[0], command)
    return watch(command, parent, death)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
