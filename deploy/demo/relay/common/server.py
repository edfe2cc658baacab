"""The relay's HTTP door: POST /webhook forwards, GET /health answers; the middleware counts every webhook.

Rule: what the plane hears is what happened here. A webhook is ok when the sink took it; every other end is a failure,
reported with the input that met it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import prunella_agent as prunella

from .settings import DESTINATION_HEADER, Settings, load

MAX_BODY = 256 * 1024

# The body to forward and the headers that prove who sent it.
Signing = Callable[[bytes, bytes], tuple[bytes, Mapping[str, str]]]


class Sends(Protocol):
    """Whatever brings a webhook to its destination."""

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int: ...


class Relay:
    """Signs and forwards webhooks, and counts how that went."""

    def __init__(self, settings: Settings, sign: Signing, delivery: Sends) -> None:
        self.settings = settings
        self.sign = sign
        self.delivery = delivery

    def webhook(self, body: bytes, wanted: str | None) -> int:
        """Forwards one webhook and counts it; returns the status for its sender."""
        try:
            destination = self.settings.destination(wanted)
            payload, headers = self.sign(body, self.settings.secret)
            status = self.delivery.send(destination, payload, headers)
        except Exception:  # noqa: BLE001 - whatever went wrong, the webhook did not arrive
            status = 502
        ok = status < 300
        prunella.webhook(ok=ok, sample=None if ok else body)
        return 200 if ok else 502


class Door(BaseHTTPRequestHandler):
    """HTTP in front of one relay."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    relay: Relay

    def do_GET(self) -> None:
        """GET /health."""
        self.answer(200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        """POST /webhook."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/webhook" or not 0 < length <= MAX_BODY:
            self.close_connection = True
            self.answer(404 if self.path != "/webhook" else 413)
            return
        self.answer(self.relay.webhook(self.rfile.read(length), self.headers.get(DESTINATION_HEADER)))

    def answer(self, status: int) -> None:
        """A status without a body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the standard library gives it
        """Says nothing: one line for each webhook helps nobody."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, and room for a burst of them."""

    daemon_threads = True
    request_queue_size = 128


def run(version: str, sign: Signing, delivery: Sends) -> None:
    """Serves on 127.0.0.1:$PORT until SIGTERM."""
    prunella.start(release=version)
    door = type("RelayDoor", (Door,), {"relay": Relay(load(), sign, delivery)})
    with Server(("127.0.0.1", int(os.environ["PORT"])), door) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.05)
    prunella.flush()
