"""A view of the files of its own: the sandbox sees the system's programs, the interpreter and its own folder.

Rule: only in a mount namespace of our own, so nothing outside it changes. Whatever is not named here is not there:
keys, databases, homes, sockets, other releases. Everything but the sandbox's own folder can only be read, also by the
user who owns it. A folder that root keeps closed is passed by showing what is needed of it at the same path.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

BIND, MOVE, RECURSIVE, PRIVATE, REMOUNT, READ_ONLY, NOSUID, NODEV = 4096, 8192, 16384, 1 << 18, 32, 1, 2, 4
DETACH = 2
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SETTINGS = (
    "alternatives", "ca-certificates", "group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "locale.alias", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/ca-trust",
    "pki/tls/certs", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom")
# Flags that a mount has already, which a user namespace may not take away: statvfs to mount.
KEPT_FLAGS = {2: NOSUID, 4: NODEV, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}


def enter(folder: Path) -> bool:
    """Makes this process see nothing but what a release needs; False, with nothing changed, when that cannot be had."""
    if not sys.platform.startswith("linux"):
        return False
    root = folder / ".view"
    try:
        _mount("none", Path("/"), None, RECURSIVE | PRIVATE)
        root.mkdir()
        _mount("none", root, "tmpfs", NOSUID | NODEV, "mode=755,size=64m")
    except OSError:
        return False
    try:
        _furnish(root, folder)
        os.chdir(root)
        _mount(".", Path("/"), None, MOVE)
        os.chroot(".")
        os.chdir("/")
    except OSError:
        os.chdir(folder)
        with suppress(OSError):
            _library().umount2(str(root).encode(), DETACH)
        return False
    return True


def needed(folder: Path) -> list[Path]:
    """The interpreter's places, by every name they have, and the sandbox's own folder last."""
    places = [Path(name) for name in (sys.base_prefix, sys.prefix)]
    named = {*(place.absolute() for place in places), *(Path(os.path.realpath(place)) for place in places)}
    within = [place for place in sorted(named) if not any(Path(system) in (place, *place.parents) for system in SYSTEM)]
    return [*within, folder]


def _furnish(root: Path, folder: Path) -> None:
    for name in SYSTEM:
        _show(root, Path(name))
    for name in SETTINGS:
        _show(root, Path("/etc", name))
    for place in needed(folder):
        _show(root, place, writable=place == folder)
    for name in DEVICES:
        _show(root, Path("/dev", name), writable=True)
    for name in ("tmp", "dev/shm"):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(0o1777)
    (root / "proc").mkdir()
    # Where the kernel refuses it, a release does without.
    with suppress(OSError):
        _mount("proc", root / "proc", "proc", NOSUID | NODEV)


def _show(root: Path, place: Path, *, writable: bool = False) -> None:
    target = root / place.relative_to("/")
    if place.is_symlink() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(place.readlink())
        return
    if not place.exists():
        return
    if place.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(place), target, None, BIND)
    if not writable:
        has = os.statvfs(target).f_flag
        kept = sum(flag for bit, flag in KEPT_FLAGS.items() if has & bit)
        _mount("none", target, None, BIND | REMOUNT | READ_ONLY | NOSUID | kept & ~NOSUID)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, str(target), kind)]
    if _library().mount(*words, ctypes.c_ulong(flags), data.encode() if data else None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")
