"""Where a plane keeps what is its own: one folder per checkout.

Rule: two checkouts never share a plane, two starts of one checkout never make two. Whoever holds the lock runs the
plane; everybody else reads `plane.json` and attaches. What must survive a restart (passwords, the key, ports) is in
`kept.json`; what describes the running plane is in `plane.json` and goes with it. Both hold secrets: mode 0600,
replaced whole, never edited in place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent.parent
LOCK_RETRIES, LOCK_PAUSE = 10, 0.05


@dataclass
class State:
    """The folder of one plane."""

    folder: Path
    _lock: int | None = field(default=None, repr=False)

    @property
    def plane_file(self) -> Path:
        """Description of the running plane."""
        return self.folder / "plane.json"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.folder / "logs"

    def acquire(self) -> bool:
        """Takes the lock that only the running plane holds; False when a plane runs. The lock dies with us."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(LOCK_RETRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Whoever asks `is_running` holds it for an instant too.
                time.sleep(LOCK_PAUSE)
            else:
                self._lock = descriptor
                return True
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_running(self) -> bool:
        """Whether some process holds the lock."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def plane(self) -> dict[str, Any]:
        """What `plane.json` says; empty when no plane runs here."""
        return read_json(self.plane_file) if self.is_running() else {}

    def write_plane(self, content: Mapping[str, Any]) -> None:
        """Replaces the description of the running plane; only its runner may."""
        write_json(self.plane_file, content)

    def saved(self) -> dict[str, Any]:
        """What outlives a run."""
        return read_json(self.folder / "kept.json")

    def save(self, **values: Any) -> None:
        """Adds to what outlives a run."""
        write_json(self.folder / "kept.json", {**self.saved(), **values})

    def secret(self, name: str, length: int = 24) -> str:
        """A random secret in hex (`length` bytes), made at first use and kept."""
        known = self.saved().get("secrets", {})
        if name not in known:
            known = {**known, name: secrets.token_hex(length)}
            self.save(secrets=known)
        return str(known[name])

    def wipe(self) -> None:
        """Forgets everything but the lock; only the holder may."""
        for entry in self.folder.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a file whole, readable by us alone."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True))


def write_text(path: Path, content: str) -> None:
    """Replaces a file whole, readable by us alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def label(checkout: Path) -> str:
    """Name of a checkout's folder: readable, and different for each path."""
    return f"{checkout.name or 'root'}-{hashlib.sha256(str(checkout).encode()).hexdigest()[:8]}"


def root_folder() -> Path:
    """Where an administrator's planes are: a place that the database's user can reach."""
    return Path("/var/lib/prunella")


def locate(
    environ: Mapping[str, str] = os.environ,
    checkout: Path = CHECKOUT,
    say: Callable[[str], None] = lambda _line: None,
) -> State:
    """The state of this checkout's plane; makes the folder. `PRUNELLA_STATE` overrides the place."""
    given = environ.get("PRUNELLA_STATE", "")
    if given:
        return State(private_folder(Path(given).expanduser().resolve()))
    if os.geteuid() == 0:
        wanted = root_folder()
    else:
        home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/")) / ".local" / "state"
        wanted = Path(home) / "prunella"
    try:
        return State(private_folder(wanted / label(checkout)))
    except OSError:
        fallback = Path(tempfile.gettempdir()) / f"prunella-{os.geteuid()}"
        say(f"state: {wanted} cannot be written, using {fallback} (set PRUNELLA_STATE to choose a place)")
        return State(private_folder(ensure_owned(fallback) / label(checkout)))


def private_folder(folder: Path) -> Path:
    """Makes a folder of ours. Others may pass through to what is theirs (the database's own folder), not look."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if made:
        folder.chmod(0o711)
    probe = folder / f".probe.{os.getpid()}"
    probe.touch()
    with contextlib.suppress(FileNotFoundError):
        probe.unlink()
    return folder


def ensure_owned(folder: Path) -> Path:
    """A folder in a place where everybody may write: ours alone, or an error."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else; set PRUNELLA_STATE to a folder of yours")
    return folder
