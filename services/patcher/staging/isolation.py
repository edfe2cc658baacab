"""What keeps a release in its sandbox: limits, namespaces, an unprivileged user. Linux only; elsewhere only limits.

Rule: everything that can be had is taken, and what could not be had is said in the result. Whether that is enough is
for the policy to say (`min_isolation`), before anything of a release runs. The levels: `none` (limits only), `user` (a
user that is not the service's), `namespaces` (also no network but loopback, and a file view of its own). A user
namespace counts as a separate user together with a file view of its own: there is nothing left that the same user
number could open, signal or trace. Nothing here needs privileges.
"""

import ctypes
import fcntl
import os
import pwd
import resource
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from services.patcher.staging import file_view

MIB = 1024 * 1024
NEWNET, NEWUSER, NEWPID, NEWIPC, NEWNS = 0x40000000, 0x10000000, 0x20000000, 0x08000000, 0x20000
LOOPBACK, OWN, SHARED = "loopback", "own", "shared"
LEVELS = ("none", "user", "namespaces")
NO_NEW_PRIVS, DUMPABLE, DEATH_SIGNAL = 38, 4, 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
LIMITS = {"RLIMIT_AS": 2048 * MIB, "RLIMIT_FSIZE": 64 * MIB, "RLIMIT_NOFILE": 256, "RLIMIT_CORE": 0}
# Processes are counted for the whole user, whatever else runs as it.
PROCESSES = 256


def limit(seconds: float) -> None:
    """Bounds memory, files, processes and processor time of this process and its children."""
    for name, most in {**LIMITS, "RLIMIT_CPU": int(seconds) + 5}.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(number, (bound, bound))
        except (ValueError, OSError):
            continue  # this system does not have it


def processes() -> int:
    """How many processes share the session of this one."""
    session, found = os.getsid(0), 0
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                found += os.getsid(int(place.name)) == session
            except OSError:
                continue
    return found


def runs_as_root(process: int) -> bool:
    """Whether a process is root's; what has ended is nobody's."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return any(line.split()[2] == "0" for line in status.splitlines() if line.startswith("Uid:"))


def limit_processes() -> None:
    """Bounds the number of processes of the user this process now is."""
    if hasattr(resource, "RLIMIT_NPROC"):
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = PROCESSES if hard == resource.RLIM_INFINITY else min(PROCESSES, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


@dataclass(frozen=True)
class Spaces:
    """Which namespaces this process and its children have to themselves."""

    network: bool = False
    mounts: bool = False
    user: bool = False


@dataclass(frozen=True)
class Confinement:
    """What keeps a release apart: who it runs as, which network it has and which files it sees."""

    user: str
    network: str
    files: str
    separate_user: bool

    @property
    def level(self) -> str:
        """The isolation in one word: none, user or namespaces."""
        if not self.separate_user:
            return "none"
        return "namespaces" if (self.network, self.files) == (LOOPBACK, OWN) else "user"

    @property
    def missing(self) -> list[str]:
        """What is lacking of full isolation, for people."""
        wanted = (
            ("a separate user", self.separate_user),
            ("a network of its own", self.network == LOOPBACK),
            ("a file view of its own", self.files == OWN),
        )
        return [name for name, had in wanted if not had]


def separate() -> Spaces:
    """Takes namespaces: as root by itself, otherwise (or where root may not) through a user namespace."""
    if os.geteuid() == 0:
        if _unshare(NEWNS | NEWNET | NEWIPC | NEWPID):
            return Spaces(loopback_up(), mounts=True)
        if _unshare(NEWNET | NEWIPC | NEWPID):
            return Spaces(loopback_up())
        if not can_run_as_nobody() or become_nobody() != "nobody":
            return Spaces()
    return _separate_unprivileged()


def _separate_unprivileged() -> Spaces:
    user, group = os.geteuid(), os.getegid()
    # A change of user made the kernel close /proc/self to us.
    _prctl(DUMPABLE, 1)
    for flags in (NEWNS | NEWNET | NEWIPC | NEWPID, NEWNET | NEWIPC | NEWPID):
        if _unshare(NEWUSER | flags):
            break
    else:
        return Spaces()
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return Spaces()
    return Spaces(loopback_up(), mounts=bool(flags & NEWNS), user=True)


def confine(folder: Path, spaces: Spaces, service_user: int) -> Confinement:
    """Enters a file view of its own and becomes an unprivileged user, as far as either can be had.

    Called in the process that runs the release, a child of the one that took the namespaces; `service_user` is who
    the service runs as.
    """
    files = OWN if spaces.mounts and file_view.enter(folder) else SHARED
    if os.geteuid() == 0 and can_run_as_nobody():
        os.chown(folder, *_ids_of_nobody())
        become_nobody()
    # With files of its own, no other process in sight and no right over it, the same number means nothing.
    apart = os.geteuid() != service_user or (spaces.user and files == OWN)
    return Confinement(_user_name(), LOOPBACK if spaces.network else SHARED, files, apart)


def become_nobody() -> str:
    """Becomes an unprivileged user; returns the name of who it is now."""
    try:
        user, group = _ids_of_nobody()
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except (KeyError, OSError):
        return "root"
    return "nobody"


def _ids_of_nobody() -> tuple[int, int]:
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def can_run_as_nobody() -> bool:
    """Whether the interpreter is reachable for the unprivileged user; asked in a child."""
    child = os.fork()
    if child == 0:
        reachable = False
        try:
            places = [Path(sys.executable), Path(os.__file__)]
            reachable = become_nobody() == "nobody" and os.access(sys.executable, os.X_OK)
            reachable = reachable and all(os.access(place, os.R_OK) for place in places)
        finally:
            os._exit(0 if reachable else 1)
    return os.waitpid(child, 0)[1] == 0


def no_new_privileges() -> None:
    """No setuid program gains anything, and nobody of the same user may look into this process."""
    if sys.platform.startswith("linux"):
        _prctl(NO_NEW_PRIVS, 1)
        _prctl(DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """Ends this process when its parent ends; `parent` is who it was. Cleared by a fork or a change of user."""
    if sys.platform.startswith("linux"):
        _prctl(DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def loopback_up() -> bool:
    """Brings up `lo` in a fresh network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            name = struct.pack("16sh", b"lo", 0)
            flags = struct.unpack("16sh", fcntl.ioctl(probe, SIOCGIFFLAGS, name))[1]
            fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))
            return True
    except OSError:
        return False


def _unshare(flags: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
