"""Signs a webhook: HMAC-SHA256 over the canonical form of its event; names type and id of the event."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from __future__ import annotations

import json
from collections.abc import Mapping

from ..common.sink import SIGNATURE_HEADER, signature


def sign(body: bytes, secret: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The body to forward and the headers that prove who sent it. Raises ValueError for what is not JSON."""
    event = json.loads(body)
    canonical = json.dumps(event, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: signature(canonical, secret)}
    for header, key in (("X-Relay-Event", "type"), ("X-Relay-Id", "id")):
        value = str(event.get(key, "")) if isinstance(event, dict) else ""
        if value.isascii() and value.isprintable():
            headers[header] = value[:64]
    return body, headers
