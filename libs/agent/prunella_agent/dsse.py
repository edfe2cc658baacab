"""Signed envelopes (DSSE 1.0): the one place that signs and verifies what an agent may run or be configured with.

Rule: an envelope is valid only when every pinned key signed it: at least two keys, told apart by their bytes and not by
their names. It says what kind of thing it holds, and one kind never passes for another. There is no switch that turns
any of this off.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from prunella_agent.archive import ReleaseError

MAX_ENVELOPE = 64 * 1024
KEYS_NEEDED = 2


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


def seal(payload_type: str, payload: bytes, private_keys: Sequence[bytes]) -> bytes:
    """The envelope (JSON) of a payload, signed by every given raw private key."""
    message = pre_authentication(payload_type, payload)
    signatures = [
        {
            "keyid": key_id(public_key(private)),
            "sig": base64.b64encode(Ed25519PrivateKey.from_private_bytes(private).sign(message)).decode(),
        }
        for private in private_keys
    ]
    envelope = {"payloadType": payload_type, "payload": base64.b64encode(payload).decode(), "signatures": signatures}
    return json.dumps(envelope, separators=(",", ":")).encode()


def verify(envelope: bytes, payload_type: str, pinned: Sequence[bytes]) -> bytes:
    """The payload of an envelope of this type that every pinned key signed. Raises ReleaseError."""
    keys = set(pinned)
    if len(keys) < KEYS_NEEDED or any(len(key) != 32 for key in keys):
        raise ReleaseError(f"{KEYS_NEEDED} distinct pinned keys are needed, there are {len(keys)}", "KEYS_NOT_PINNED")
    payload, signatures = open_envelope(envelope, payload_type)
    message = pre_authentication(payload_type, payload)
    missing = [key_id(key) for key in sorted(keys) if not any(signed(key, sig, message) for sig in signatures)]
    if missing:
        raise ReleaseError(f"no valid signature of key {', '.join(missing)}", "SIGNATURE_MISSING")
    return payload


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


def open_envelope(envelope: bytes, payload_type: str) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of an envelope of this type, not yet verified. Raises ReleaseError."""
    if len(envelope) > MAX_ENVELOPE:
        raise ReleaseError("the envelope is too large", "ENVELOPE_MALFORMED")
    try:
        parsed = json.loads(envelope)
        if parsed["payloadType"] != payload_type:
            raise ReleaseError(f"payload type {parsed['payloadType']!r} is not {payload_type}", "ENVELOPE_MALFORMED")
        payload = base64.b64decode(parsed["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in parsed["signatures"][:16]]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ReleaseError(f"not a DSSE envelope: {error}", "ENVELOPE_MALFORMED") from error
    return payload, signatures
