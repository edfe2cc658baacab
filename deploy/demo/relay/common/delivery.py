"""Sends one signed webhook to its destination, over a connection of its own.

Rule: the answer's status is the verdict; no answer in time is a failure.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from .settings import load


class Delivery:
    """One connection for each webhook."""

    def __init__(self) -> None:
        self._timeout = load().timeout_seconds

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The destination's status. Raises OSError or http.client.HTTPException when there is none."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=self._timeout)
        try:
            connection.request("POST", parts.path or "/", body, dict(headers))
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()
