"""Sends signed webhooks over a few connections that stay open: no handshake for each of them.

Rule: the answer's status is the verdict. Connections are used in turn; one that failed is closed and opens again.
Answers are read a moment later: by then several have come.
"""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

CONNECTIONS = 4
GATHER_SECONDS = 0.05
TIMEOUT_SECONDS = 2.0


class Delivery:
    """The connections to the sink."""

    def __init__(self) -> None:
        self._netloc = ""
        self._connections: list[http.client.HTTPConnection] = []
        self._turn = itertools.count()

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The destination's status. Raises OSError or http.client.HTTPException when there is none."""
        parts = urlsplit(url)
        if parts.netloc != self._netloc:
            self._connections = [
                http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS) for _ in range(CONNECTIONS)
            ]
            self._netloc = parts.netloc
        connection = self._connections[next(self._turn) % CONNECTIONS]
        try:
            connection.request("POST", parts.path or "/", body, dict(headers))
            time.sleep(GATHER_SECONDS)
            response = connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
