"""Secrets of channels at rest: sealed with a key made from the plane's own.

Rule: what is written down is AES-256-GCM under a key that HKDF-SHA256 (RFC 5869) derives from PRUNELLA_KEY, bound to
the channel's id, so that a dump of the database holds no secret and a sealed one cannot be moved to another channel.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs.common.errors import Refused

NONCE = 12


class SecretBox:
    """Seals and opens secrets; `key` is the plane's key in hex."""

    def __init__(self, key: str) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"prunella notifications 1").derive(bytes.fromhex(key))
        self._cipher = AESGCM(derived)

    def seal(self, secret: str, channel: str) -> str:
        """The secret as it may be written down."""
        nonce = secrets.token_bytes(NONCE)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), channel.encode())).decode()

    def open(self, sealed: str, channel: str) -> str:
        """The secret; empty for none. Raises Refused when it was sealed under another key."""
        if not sealed:
            return ""
        try:
            sealed_bytes = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(sealed_bytes[:NONCE], sealed_bytes[NONCE:], channel.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            message = f"the secret of the channel {channel} was sealed under another key; type it again"
            raise Refused(message, reason="SECRET_UNREADABLE", field="secret", channel=channel) from error
