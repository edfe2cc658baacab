"""Where the demo's webhooks end: a sink that verifies each signature over the raw bytes.

Rule: what verifies is answered 200, everything else 401. Like any peer on a network it takes some milliseconds. An
address that is being shut down refuses some of what it would have taken.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping

from deploy.demo import http_streams
from deploy.demo.relay.common.sink import SIGNATURE_HEADER, signature

SERVICE_SECONDS = 0.01
# A slow merchant: each fifth answer takes its time, as long reports and full disks do.
SLOW_EACH = 5
SLOW_SECONDS = 1.5
# An old address that is being shut down: it refuses each fifth.
REFUSE_EACH = 5
REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 410: "Gone", 400: "Bad Request"}


class WebhookSink:
    """One sink for many merchants: `/<merchant>` verifies with that merchant's secret."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}
        self.taken: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self.slow: set[str] = set()
        self.shutting_down: set[str] = set()
        self._received: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.Task[None]] = set()

    def merchant(self, merchant: str, secret: bytes) -> str:
        """The URL for a merchant with this secret."""
        self.secrets[merchant] = secret
        return f"http://127.0.0.1:{self._port}/{merchant}"

    async def start(self, port: int = 0) -> int:
        """Listens on this machine; returns the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=256)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def stop(self) -> None:
        """Stops listening and ends open connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                async with asyncio.timeout(http_streams.IDLE_SECONDS):
                    first, headers = await http_streams.read_head(reader)
                    body = await http_streams.read_body(reader, headers)
                merchant = first.split(" ")[1].strip("/")
                await asyncio.sleep(self._seconds(merchant))
                status = self._verify(merchant, headers, body)
                writer.write(f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side left, or speaks something else
        except asyncio.CancelledError:
            pass  # `stop` ends here; asyncio would report a cancelled connection as an error
        finally:
            self._open.discard(task)
            writer.close()

    def _seconds(self, merchant: str) -> float:
        """How long this answer takes."""
        count = self._received[merchant] = self._received.get(merchant, 0) + 1
        return SLOW_SECONDS if merchant in self.slow and count % SLOW_EACH == 0 else SERVICE_SECONDS

    def _verify(self, merchant: str, headers: Mapping[str, str], body: bytes) -> int:
        secret = self.secrets.get(merchant)
        if secret is None:
            return 404
        good = hmac.compare_digest(headers.get(SIGNATURE_HEADER.lower(), "").encode(), signature(body, secret).encode())
        counts = self.taken if good else self.rejected
        counts[merchant] = counts.get(merchant, 0) + 1
        if good and merchant in self.shutting_down and counts[merchant] % REFUSE_EACH == 0:
            return 410
        return 200 if good else 401
