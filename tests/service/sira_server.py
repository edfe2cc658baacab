"""A SIRA that misbehaves: a real HTTP server on loopback whose answer to the next question is chosen by the test.

It keeps every request it was sent, so that tests can also say what we tell a stranger.
"""

import asyncio
import contextlib
import gzip
import ipaddress
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

GOOD = {"action": "patch", "patch_version": "2.0.0", "confidence": 0.87, "explanation": "seen elsewhere"}
FOREVER = 3600.0

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class SiraServer:
    """`answer` decides what happens to every request from now on."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> "SiraServer":
        """Listens on a port of its own."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        """Cuts every connection."""
        if self._server:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                self.asked.append(await _request(reader))
                await self.answer(writer)
                await writer.drain()
        finally:
            self._open.discard(task)
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(head[0].split()[1], headers, json.loads(body))


def reply(
    body: bytes, *, status: str = "200 OK", kind: str = "application/json", headers: tuple[str, ...] = ()
) -> Answer:
    """An answer in one piece."""
    lines = [
        f"HTTP/1.1 {status}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


def good(**changes: Any) -> Answer:
    """A proper answer; a field changed to None is left out."""
    told = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return reply(json.dumps(told).encode())


def server_error() -> Answer:
    """It broke."""
    return reply(b'{"error":"oops"}', status="500 Internal Server Error")


def too_many() -> Answer:
    """It does not want to."""
    return reply(b"{}", status="429 Too Many Requests", headers=("retry-after: 3600",))


def garbage() -> Answer:
    """It says JSON and sends none."""
    return reply(b"\x00\xff{]")


def html() -> Answer:
    """A proxy's error page with status 200."""
    return reply(b"<html><body>Bad gateway</body></html>", kind="text/html")


def redirect(location: str = "http://169.254.169.254/latest/meta-data") -> Answer:
    """It sends us elsewhere."""
    return reply(json.dumps(GOOD).encode(), status="307 Temporary Redirect", headers=(f"location: {location}",))


def bomb() -> Answer:
    """A small answer that unpacks to a large one."""
    return reply(gzip.compress(b" " * 50_000_000), headers=("content-encoding: gzip",))


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without end, as fast as we take it."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        writer.write(b" " * 16_384)
        await writer.drain()


async def trickling(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, so that no single read is ever late."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(_writer: asyncio.StreamWriter) -> None:
    """It takes the question and never answers."""
    await asyncio.sleep(FOREVER)


async def hanging_up(writer: asyncio.StreamWriter) -> None:
    """It breaks off in the middle of the answer."""
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"action":')


def unknown_authority(folder: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sira")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "sira.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
