"""Lets an unprivileged user reach the interpreter when root keeps it in a closed folder such as /root.

Rule: only in a mount namespace of our own. The closed folder is covered by an empty one in which nothing but the
interpreter shows, so whatever else root keeps there is out of sight as well. Nothing outside the namespace changes.
"""

import ctypes
import os
import sys
from pathlib import Path

NEWNS = 0x20000
BIND, MOVE, RECURSIVE, PRIVATE, NOSUID, NODEV = 4096, 8192, 16384, 1 << 18, 2, 4


def reachable(folder: Path) -> bool:
    """Uncovers interpreter and folder for everybody; False when that cannot be done here."""
    needed = sorted({Path(os.path.realpath(place)) for place in (sys.base_prefix, sys.prefix, str(folder))})
    closed = sorted({place for path in needed if (place := closed_above(path)) is not None})
    if not closed:
        return True
    try:
        return _uncover(needed, closed, folder)
    except OSError:
        return False


def closed_above(path: Path) -> Path | None:
    """The topmost folder above a path that others may not pass through."""
    for place in reversed(path.parents):
        if not place.stat().st_mode & 0o001:
            return place
    return None


def _uncover(needed: list[Path], closed: list[Path], folder: Path) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or library.unshare(NEWNS) != 0:
        return False

    def mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
        words = [word.encode() if word is not None else None for word in (source, str(target), kind)]
        if library.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target}")

    mount("none", Path("/"), None, RECURSIVE | PRIVATE)
    for cover in closed:
        inside = [path for path in needed if cover in path.parents and not any(p in path.parents for p in needed)]
        kept: list[tuple[Path, Path]] = []
        for path in inside:
            place = Path("/tmp" if cover in folder.parents else folder) / f".kept-{os.getpid()}-{len(kept)}"  # noqa: S108
            place.mkdir()
            mount(str(path), place, None, BIND)
            kept.append((place, path))
        mount("none", cover, "tmpfs", NOSUID | NODEV, "mode=755,size=64k")
        for place, path in kept:
            path.mkdir(parents=True)
            mount(str(place), path, None, MOVE)
            place.rmdir()
    return True
