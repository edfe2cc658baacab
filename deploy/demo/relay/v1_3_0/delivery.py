"""Sends signed webhooks over one connection that stays open: no handshake for each of them.

Rule: the answer's status is the verdict. A connection that failed is closed; the next webhook opens it again.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 2.0


class Delivery:
    """The connection to the sink."""

    def __init__(self) -> None:
        self._netloc = ""
        self._connection = http.client.HTTPConnection("")

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The destination's status. Raises OSError or http.client.HTTPException when there is none."""
        parts = urlsplit(url)
        if parts.netloc != self._netloc:
            self._connection.close()
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
            self._netloc = parts.netloc
        try:
            self._connection.request("POST", parts.path or "/", body, dict(headers))
            response = self._connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
