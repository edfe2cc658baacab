"""Signs a webhook: HMAC-SHA256 over the bytes that are sent."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from __future__ import annotations

from collections.abc import Mapping

from ..common.sink import SIGNATURE_HEADER, signature


def sign(body: bytes, secret: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The body to forward and the headers that prove who sent it."""
    return body, {"Content-Type": "application/json", SIGNATURE_HEADER: signature(body, secret)}
