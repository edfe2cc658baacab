"""What lies in the agent's folder beside journal and slots: the lock, the socket, the `state` file for people.

Rule: none of it decides anything; what cannot be written is raised, and whoever asked goes on without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

MAX_SOCKET_PATH = 100


def lock_folder(path: Path) -> int:
    """Locks the folder for this process. Raises BlockingIOError when another supervisor has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # A disk that takes nothing still locks what is there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def socket_path(folder: Path) -> Path:
    """Where the SDK writes to; outside the folder when its path is too long for a socket."""
    inside = folder / "telemetry.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    return Path("/tmp") / f"prunella-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"  # noqa: S108


def previous_port(state: Path) -> int:
    """The plugin's port of the last run if it is still free, else one the kernel gives."""
    try:
        wanted = int(json.loads(state.read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        wanted = 0
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def write_state(path: Path, fields: Mapping[str, object]) -> None:
    """Replaces the `state` file in one step; a draft that could not be written does not stay."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(json.dumps(fields))
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
