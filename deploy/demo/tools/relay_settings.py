"""Reads and changes the relay's configuration, one checked value at a time.

Rule: only the keys below can be set, each within its bounds; secrets are never shown. A change replaces the file whole,
so that a reader sees the old or the new one, and is refused while somebody else holds the file's lock (`<file>.lock`,
flock), as an editor or a backup would.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MASK = "***"
SECRET = ("secret", "token", "password", "key")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a value may be: a number from `least` to `most`, in `unit`."""

    least: float
    most: float
    unit: str
    meaning: str


KEYS = {"timeout_seconds": Bound(0.05, 60.0, "s", "how long a delivery waits for the sink's answer")}


class Refused(ValueError):  # noqa: N818 - says what it means
    """The change is not made; the text names the field, the rule and the remedy."""


def read(path: Path) -> dict[str, Any]:
    """The configuration, with secrets masked. Raises OSError, ValueError."""
    fields = _load(path)
    return {name: MASK if any(word in name.lower() for word in SECRET) else value for name, value in fields.items()}


def write(path: Path, key: str, value: float) -> tuple[Any, float]:
    """Sets one value; the value before (None for none) and after. Raises Refused, OSError."""
    bound = KEYS.get(key)
    if bound is None:
        raise Refused(f"key: {key[:80]!r} cannot be set here; these can: {', '.join(KEYS)}")
    if isinstance(value, bool) or not bound.least <= value <= bound.most:
        raise Refused(
            f"value: {key} ({bound.meaning}) must be a number from {bound.least:g} to {bound.most:g} {bound.unit}, "
            f"not {str(value)[:80]!r}"
        )
    with locked(path):
        fields = _load(path)
        before = fields.get(key)
        fields[key] = float(value)
        draft = path.with_name(path.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(json.dumps(fields))
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    return before, float(value)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The lock of a configuration file. Raises Refused at once when somebody else holds it."""
    descriptor = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"the configuration is locked by somebody else ({lock_path(path).name}); try later") from None
    else:
        yield
    finally:
        os.close(descriptor)


def lock_path(path: Path) -> Path:
    """Where the lock of a configuration file is."""
    return path.with_name(path.name + ".lock")


def _load(path: Path) -> dict[str, Any]:
    fields = json.loads(path.read_text())
    if not isinstance(fields, dict):
        raise Refused("the configuration is not a JSON object; a person must mend it")
    return fields
