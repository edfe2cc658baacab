"""Who the agent is: plugin id, secret and pinned release keys, got once with a one-time token.

Rule: the enrolment key is written down before the first try, so that a lost answer is asked for again and gives the
same plugin. What is secret is readable by the owner only and leaves this file as call metadata and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from prunella_agent.archive import sync_folder


@dataclass(frozen=True, slots=True)
class Credential:
    """An identity as the plane issued it."""

    plugin: str
    secret: str = field(repr=False)
    release_keys: tuple[bytes, ...] = ()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The call metadata that proves it."""
        return (("authorization", f"Plugin {self.plugin}:{self.secret}"),)

    def save(self, path: Path) -> None:
        """Writes it down, durable and readable by the owner only."""
        keys = [key.hex() for key in self.release_keys]
        write_private(path, {"plugin": self.plugin, "secret": self.secret, "release_keys": keys})


def load(path: Path) -> Credential | None:
    """The identity written down in a folder, or None before enrolment."""
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    keys = tuple(bytes.fromhex(key) for key in fields["release_keys"])
    return Credential(fields["plugin"], fields["secret"], keys)


def enrollment_key(path: Path) -> str:
    """The key of this folder's enrolment: made once, kept, the same at every try."""
    if not path.exists():
        write_private(path, {"enrollment_key": str(uuid.uuid4())})
    return str(json.loads(path.read_text())["enrollment_key"])


def write_private(path: Path, fields: dict[str, object]) -> None:
    """Replaces a JSON file in one step, readable by the owner only, durable when this returns."""
    write_file(path, json.dumps(fields).encode())


def write_file(path: Path, content: bytes) -> None:
    """Replaces a file in one step, mode 0600, durable when this returns. What could not be written leaves no draft."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_folder(path.parent)
