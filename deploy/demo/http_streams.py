"""The little HTTP that the demo's world speaks: one request, one answer, on asyncio streams.

Rule: bodies have a length, heads and bodies a limit, and every wait a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

MAX_BODY = 256 * 1024
IDLE_SECONDS = 30.0
ANSWER_SECONDS = 10.0


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """First line and headers (lower-case names). Raises asyncio.IncompleteReadError at the end of the stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """The body that the headers announce. Raises ValueError when it is too long."""
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY:
        raise ValueError(f"a body of {length} bytes")
    return await reader.readexactly(length)


async def post(port: int, path: str, body: bytes) -> int:
    """The status that a server on this machine answers; 0 when it does not answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            first, _ = await read_head(reader)
            return int(first.split(" ")[1])
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return 0
    finally:
        if writer is not None:
            writer.close()
