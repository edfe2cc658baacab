"""What a release is, and the one place that signs and verifies it.

Rule: a release is a manifest (RFC 8785 JSON) in a DSSE envelope, and it is valid only when every pinned key signed it:
at least two keys, told apart by their bytes and not by their names. The manifest names digest and size of the artifact;
bytes that differ are refused. There is no switch that turns any of this off.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from prunella_agent.archive import MAX_PACKED, ReleaseError, build_archive, sync_folder, unpack

__all__ = [
    "MAX_PACKED",
    "PAYLOAD_TYPE",
    "Manifest",
    "ReleaseError",
    "build_archive",
    "check_artifact",
    "describe",
    "generate_key",
    "key_id",
    "public_key",
    "read_manifest",
    "sign",
    "sync_folder",
    "unpack",
    "verify",
]  # fmt: skip

PAYLOAD_TYPE = "application/vnd.prunella.release+json"
MAX_ENVELOPE = 64 * 1024
KEYS_NEEDED = 2
PACKAGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release is made of and how it is run. Commands whose first word is `python` use the running one."""

    package: str
    version: str
    digest: str
    size: int
    entrypoint: tuple[str, ...]
    probe: tuple[str, ...] = ()
    smoke: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The canonical bytes that are signed."""
        return rfc8785.dumps({k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()})


def describe(
    artifact: bytes,
    *,
    package: str,
    version: str,
    entrypoint: Sequence[str] = ("python", "main.py"),
    probe: Sequence[str] = ("python", "probe.py"),
    smoke: Sequence[str] = ("python", "smoke.py"),
) -> Manifest:
    """The manifest of an artifact. Raises ReleaseError when a field breaks its rule."""
    digest = hashlib.sha256(artifact).hexdigest()
    manifest = Manifest(package, version, digest, len(artifact), tuple(entrypoint), tuple(probe), tuple(smoke))
    return read_manifest(manifest.encode())


def generate_key() -> tuple[bytes, bytes]:
    """A new Ed25519 key: (private, public), 32 raw bytes each."""
    private = Ed25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The raw public key of a raw private key."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """A short name for a public key; a name, never a proof."""
    return hashlib.sha256(public).hexdigest()[:16]


def sign(manifest: Manifest, private_keys: Sequence[bytes]) -> bytes:
    """The DSSE envelope (JSON) of a manifest, signed by every given raw private key."""
    payload = manifest.encode()
    message = pre_authentication(PAYLOAD_TYPE, payload)
    signatures = [
        {
            "keyid": key_id(public_key(private)),
            "sig": base64.b64encode(Ed25519PrivateKey.from_private_bytes(private).sign(message)).decode(),
        }
        for private in private_keys
    ]
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": signatures}
    return json.dumps(envelope, separators=(",", ":")).encode()


def verify(envelope: bytes, pinned: Sequence[bytes]) -> Manifest:
    """The manifest inside an envelope that every pinned key signed. Raises ReleaseError."""
    keys = set(pinned)
    if len(keys) < KEYS_NEEDED or any(len(key) != 32 for key in keys):
        raise ReleaseError(f"{KEYS_NEEDED} distinct pinned keys are needed, there are {len(keys)}", "KEYS_NOT_PINNED")
    payload, signatures = open_envelope(envelope)
    message = pre_authentication(PAYLOAD_TYPE, payload)
    missing = [key_id(key) for key in sorted(keys) if not any(signed(key, sig, message) for sig in signatures)]
    if missing:
        raise ReleaseError(f"no valid signature of key {', '.join(missing)}", "SIGNATURE_MISSING")
    return read_manifest(payload)


def check_artifact(manifest: Manifest, artifact: bytes) -> None:
    """Raises ReleaseError unless the bytes are the ones the manifest names."""
    if len(artifact) != manifest.size:
        raise ReleaseError(f"{len(artifact)} bytes, the manifest says {manifest.size}", "SIZE_MISMATCH")
    if hashlib.sha256(artifact).hexdigest() != manifest.digest:
        raise ReleaseError("the artifact is not the one that was signed", "DIGEST_MISMATCH")


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: what is signed instead of the bare payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this key made this signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def open_envelope(envelope: bytes) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of an envelope, not yet verified. Raises ReleaseError."""
    if len(envelope) > MAX_ENVELOPE:
        raise ReleaseError("the envelope is too large", "ENVELOPE_MALFORMED")
    try:
        parsed = json.loads(envelope)
        if parsed["payloadType"] != PAYLOAD_TYPE:
            raise ReleaseError(f"payload type {parsed['payloadType']!r} is not a release", "ENVELOPE_MALFORMED")
        payload = base64.b64decode(parsed["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in parsed["signatures"][:16]]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ReleaseError(f"not a DSSE envelope: {error}", "ENVELOPE_MALFORMED") from error
    return payload, signatures


def read_manifest(payload: bytes) -> Manifest:
    """The manifest in canonical bytes, each field checked. Raises ReleaseError."""
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(payload).items()}
        manifest = Manifest(**fields)
        canonical = manifest.encode() == payload
    except (ValueError, TypeError, AttributeError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise ReleaseError(f"not a release manifest: {error}", "MANIFEST_MALFORMED") from error
    wrong = [name for name, good in rules(manifest).items() if not good]
    if wrong or not canonical:
        raise ReleaseError(f"manifest: {', '.join(wrong) or 'not canonical JSON'}", "MANIFEST_MALFORMED")
    return manifest


def rules(manifest: Manifest) -> dict[str, bool]:
    """Field → whether it keeps its rule."""
    return {
        "package": matches(PACKAGE, manifest.package),
        "version": matches(VERSION, manifest.version),
        "digest": matches(DIGEST, manifest.digest),
        "size": type(manifest.size) is int and 0 < manifest.size <= MAX_PACKED,
        "entrypoint": is_command(manifest.entrypoint) and len(manifest.entrypoint) > 0,
        "probe": is_command(manifest.probe),
        "smoke": is_command(manifest.smoke),
    }


def matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether a value is a string of this pattern from end to end."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_command(words: object) -> bool:
    """Whether a value is a list of up to 32 usable words."""
    return (
        isinstance(words, tuple)
        and len(words) <= 32
        and all(isinstance(word, str) and 0 < len(word) <= 1024 and "\0" not in word for word in words)
    )
