"""Checkpoints: the size and root of the log, signed, in a form that other tools of transparency logs read.

Rule: the text of a checkpoint is origin, size and root (base64), one to a line (C2SP tlog-checkpoint); behind an empty
line stands one line per signature, `— name base64(key id, signature)` (C2SP signed-note). What is signed is the text
with its last line end. A key is told to others as `name+id+base64(0x01, public key)`. Only Ed25519 is known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from libs.common.errors import Invalid

ED25519 = b"\x01"
LONGEST = 16_384
DASH = "— "
ROOT = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the name it signs under."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that tell keys of one name apart; no security rests on them."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and the name it signs under."""

    name: str
    private: Ed25519PrivateKey

    @classmethod
    def of(cls, name: str, seed: bytes) -> Signer:
        """From the 32 bytes of the private key."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def key(self) -> Key:
        """The public half."""
        return Key(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, size: int, root: bytes) -> str:
        """A signed checkpoint; its origin is the key's name."""
        text = f"{self.name}\n{size}\n{base64.b64encode(root).decode()}\n"
        signature = base64.b64encode(self.key.id + self.private.sign(text.encode())).decode()
        return f"{text}\n{DASH}{self.name} {signature}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as it was read; `signatures` are (name, key id, signature)."""

    origin: str
    size: int
    root: bytes
    text: bytes
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def signed_by(self, keys: Sequence[Key]) -> Key | None:
        """The first of the keys whose signature is on it and valid."""
        for key in keys:
            for name, ident, signature in self.signatures:
                if (
                    (name, ident) == (key.name, key.id)
                    and key.name == self.origin
                    and _valid(key, signature, self.text)
                ):
                    return key
        return None


def read(note: str) -> Checkpoint:
    """A checkpoint from its note. Raises Invalid; no signature is checked."""
    text, found, rest = note.partition("\n\n")
    lines = text.split("\n")
    signatures = rest.split("\n")
    if len(note) > LONGEST or not found or len(lines) < 3 or len(signatures) < 2 or signatures.pop():
        raise _wrong("it is not text, an empty line and signatures, each line ended")
    origin, size, root = lines[:3]
    if not origin or not size.isascii() or not size.isdecimal() or str(int(size)) != size:
        raise _wrong("it does not begin with an origin and a size")
    raw = _bytes(root)
    if len(raw) != ROOT:
        raise _wrong("its third line is no base64 of a SHA-256 hash")
    return Checkpoint(origin, int(size), raw, f"{text}\n".encode(), tuple(_signature(line) for line in signatures))


def read_key(text: str) -> Key:
    """A key from `name+id+base64`. Raises Invalid when it is none, or its id is of another key."""
    name, ident, encoded = (*text.strip().split("+", 2), "", "")[:3]
    raw = _bytes(encoded) if name else b""
    if len(raw) != 1 + ROOT or raw[:1] != ED25519 or " " in name:
        raise Invalid(
            "a key is written name+id+base64 as `prunella audit key` prints it, for Ed25519",
            reason="BAD_KEY",
            field="key",
        )
    key = Key(name, raw[1:])
    if key.id.hex() != ident.lower():
        raise Invalid(f"the id {ident[:16]!r} is not that of the key behind it", reason="BAD_KEY", field="key")
    return key


def _signature(line: str) -> tuple[str, bytes, bytes]:
    parts = line.removeprefix(DASH).split(" ")
    raw = _bytes(parts[1]) if line.startswith(DASH) and len(parts) == 2 else b""
    if len(raw) < 5:
        raise _wrong("a line behind the empty line is no signature")
    return parts[0], raw[:4], raw[4:]


def _valid(key: Key, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _wrong(detail: str) -> Invalid:
    return Invalid(f"this is no signed checkpoint: {detail}", reason="BAD_CHECKPOINT", field="checkpoint")
