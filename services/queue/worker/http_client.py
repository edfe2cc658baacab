"""An MCP server at an address (streamable HTTP): bounded answers, no surprises.

Rule: an answer longer than a frame is refused as it comes, compressed ones before they begin (a small one may unpack to
gigabytes). Redirects stay within the server's own origin, which the SDK sees to.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from services.queue.worker.config import ServerConfig
from services.queue.worker.framing import LONGEST
from services.queue.worker.stdio_client import TOO_LARGE

CONNECT_SECONDS = 10.0
# Longer than any deadline of a call; the deadline is the caller's.
READ_SECONDS = 900.0


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends in an error when it grows too long."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._body:
            size += len(chunk)
            if size > LONGEST:
                raise httpx2.StreamError(f"{TOO_LARGE}: an answer of more than {LONGEST} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Ends the body."""
        await self._body.aclose()


class _Transport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, its body bounded. Event streams are bounded event by event by the SDK."""
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("the server compresses although it was asked not to")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Bounded(response.stream)
        return response


@contextlib.asynccontextmanager
async def transport(config: ServerConfig) -> AsyncGenerator[TransportStreams, None]:
    """A connection to the server at the configured address."""
    headers = {**config.headers, "accept-encoding": "identity"}
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=READ_SECONDS)
    async with (
        httpx2.AsyncClient(transport=_Transport(), headers=headers, timeout=timeout) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=LONGEST) as streams,
    ):
        yield streams
