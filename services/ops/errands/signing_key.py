"""The private key that checkpoints are signed with, and the last checkpoint this place signed.

Rule: the key is configured (OPS_AUDIT_KEY), or made at the first start and saved in the service's folder, readable by
nobody else; replicas on several machines get the same. The last checkpoint is saved outside the database, so that
whoever owns the database cannot have a rewritten log signed.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from libs.common.errors import Invalid
from services.ops.audit import note
from services.ops.audit.note import Checkpoint, Signer

KEY, LAST = "audit.key", "audit.checkpoint"
SEED = 32


class SigningKey:
    """Signs under the name of a log."""

    def __init__(self, folder: Path, configured: str = "") -> None:
        """`configured` is the key in hex, 64 digits; empty to keep one in `folder`."""
        self._folder = folder
        self._configured = configured
        self._signer: Signer | None = None

    def signer(self, origin: str) -> Signer:
        """The key, with the log's name. Raises Invalid when the kept key is damaged."""
        if self._signer is None or self._signer.name != origin:
            self._signer = Signer.of(origin, self._seed())
        return self._signer

    def last_checkpoint(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of this log that was signed here. Raises Invalid when it is damaged."""
        try:
            text = (self._folder / LAST).read_text()
        except FileNotFoundError:
            return None
        found = note.read(text)
        if found.origin != origin:
            return None
        if not found.signed_by([self.signer(origin).key]):
            raise Invalid(
                f"{self._folder / LAST} is not what was signed here; put it back, or remove it together with the key",
                reason="AUDIT_MEMORY",
                field=str(self._folder / LAST),
            )
        return found

    def save_checkpoint(self, text: str) -> None:
        """Saves the checkpoint that was signed last."""
        _write(self._folder / f".{LAST}.{os.getpid()}", text).replace(self._folder / LAST)

    def _seed(self) -> bytes:
        path = self._folder / KEY
        if not self._configured and not path.exists():
            draft = _write(self._folder / f".{KEY}.{secrets.token_hex(4)}", secrets.token_hex(SEED))
            with suppress(FileExistsError):
                # Whoever links first gave the key; two replicas of one folder agree.
                path.hardlink_to(draft)
            draft.unlink()
        try:
            seed = bytes.fromhex(self._configured or path.read_text().strip())
        except ValueError:
            seed = b""
        if len(seed) != SEED:
            where = "OPS_AUDIT_KEY" if self._configured else str(path)
            raise Invalid(f"{where} must hold 64 hexadecimal digits", reason="AUDIT_KEY", field=where)
        return seed


def _write(path: Path, text: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path
