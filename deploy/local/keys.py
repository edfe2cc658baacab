"""The two keys that releases of a local plane are signed with.

Rule: agents accept only what both keys signed. On a plane of your own the private halves stay with whoever releases,
and the services are told the public ones (PATCHER_RELEASE_KEYS, INGEST_RELEASE_KEYS); a local plane makes a pair at its
first start and keeps both halves in its state folder, so that it can publish its demo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local.state import State

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYS = ("release-key-1", "release-key-2")


def release_keys(state: State) -> tuple[Ed25519PrivateKey, Ed25519PrivateKey]:
    """Both private keys of this plane, made at first use."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    first, second = (Ed25519PrivateKey.from_private_bytes(bytes.fromhex(state.secret(name, 32))) for name in KEYS)
    return first, second


def public_hex(state: State) -> str:
    """Both public keys, hex, separated by a comma: the value of PATCHER_RELEASE_KEYS."""
    return ",".join(key.public_key().public_bytes_raw().hex() for key in release_keys(state))
