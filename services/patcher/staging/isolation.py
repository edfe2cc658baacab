"""What keeps a release in its sandbox: limits, namespaces, an unprivileged user. Linux only; elsewhere only limits.

Rule: everything that can be had is taken, and what could not be had is said in the result. Nothing here needs
privileges.
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
from pathlib import Path

MIB = 1024 * 1024
NEWNET, NEWUSER, NEWPID, NEWIPC = 0x40000000, 0x10000000, 0x20000000, 0x08000000
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


def limit_processes() -> None:
    """Bounds the number of processes of the user this process now is."""
    if hasattr(resource, "RLIMIT_NPROC"):
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = PROCESSES if hard == resource.RLIM_INFINITY else min(PROCESSES, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def separate() -> bool:
    """A network of its own with nothing but loopback, as root; False when that cannot be had."""
    return os.geteuid() == 0 and _unshare(NEWNET | NEWIPC | NEWPID) and loopback_up()


def separate_unprivileged() -> bool:
    """The same through a user namespace, for everybody else."""
    user, group = os.geteuid(), os.getegid()
    if not _unshare(NEWUSER | NEWNET | NEWIPC | NEWPID):
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return False
    return loopback_up()


def drop(folder: Path) -> str:
    """Becomes an unprivileged user when this is root; the folder goes along. Returns the user's name."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name if _known(os.geteuid()) else str(os.geteuid())
    try:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        os.setgroups([])
        os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
        os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    except (KeyError, OSError):
        return "root"
    return "nobody"


def can_run_as_nobody() -> bool:
    """Whether the interpreter is reachable for the unprivileged user; asked in a child."""
    child = os.fork()
    if child == 0:
        reachable = False
        try:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
            os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
            places = [Path(sys.executable), Path(os.__file__)]
            reachable = os.access(sys.executable, os.X_OK) and all(os.access(place, os.R_OK) for place in places)
        finally:
            os._exit(0 if reachable else 1)
    return os.waitpid(child, 0)[1] == 0


def no_new_privileges() -> None:
    """No setuid program gains anything, and nobody of the same user may look into this process."""
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None, use_errno=True)
        library.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
        library.prctl(DUMPABLE, 0, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Ends this process when its parent ends; `parent` is who it was. Cleared by a fork or a change of user."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
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


def _known(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True
