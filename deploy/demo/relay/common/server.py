"""The relay's HTTP server: POST /webhook forwards, GET /health and /status answer; the middleware counts every webhook.

Rule: what the plane hears is what happened here. A webhook is ok when the sink took it; every other end is a failure,
reported with the input that met it. A sink that says no is the webhook's failure; one that does not answer in time is
an error of ours as well, and reported as one. SIGTERM ends the relay; SIGHUP makes it start again as the same process,
with the configuration as it is then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import prunella_agent as prunella

from .settings import DESTINATION_HEADER, Settings, load

MAX_BODY = 256 * 1024

# The body to forward and the headers that prove who sent it.
Signing = Callable[[bytes, bytes], tuple[bytes, Mapping[str, str]]]


class Sender(Protocol):
    """Whatever brings a webhook to its destination."""

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int: ...


class Relay:
    """Signs and forwards webhooks, and counts how that went."""

    def __init__(self, settings: Settings, sign: Signing, delivery: Sender) -> None:
        self.settings = settings
        self.sign = sign
        self.delivery = delivery
        self.started = time.time()
        self.webhooks = 0
        self.failed = 0

    def webhook(self, body: bytes, wanted: str | None) -> int:
        """Forwards one webhook and counts it; returns the status for its sender."""
        try:
            destination = self.settings.destination(wanted)
            payload, headers = self.sign(body, self.settings.secret)
            status = self.delivery.send(destination, payload, headers)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the webhook did not arrive
            status = 502
            print(f"a webhook was not delivered: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if isinstance(error, TimeoutError):
                prunella.report(error, timeout_seconds=self.settings.timeout_seconds)
        ok = status < 300
        self.webhooks += 1
        self.failed += not ok
        prunella.webhook(ok=ok, sample=None if ok else body)
        return 200 if ok else 502

    def status(self) -> bytes:
        """What this process says of itself, as JSON; `started` differs after every start."""
        fields = {
            "started": self.started,
            "up_seconds": round(time.time() - self.started, 3),
            "settings": {"timeout_seconds": self.settings.timeout_seconds},
            "webhooks": self.webhooks,
            "failed": self.failed,
        }
        return json.dumps(fields).encode()


class RelayHandler(BaseHTTPRequestHandler):
    """HTTP in front of one relay."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    relay: Relay

    def do_GET(self) -> None:
        """GET /health and GET /status."""
        if self.path == "/status":
            self.answer(200, self.relay.status())
        else:
            self.answer(200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        """POST /webhook."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/webhook" or not 0 < length <= MAX_BODY:
            self.close_connection = True
            self.answer(404 if self.path != "/webhook" else 413)
            return
        self.answer(self.relay.webhook(self.rfile.read(length), self.headers.get(DESTINATION_HEADER)))

    def answer(self, status: int, body: bytes = b"") -> None:
        """A status, and a body where there is one."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the standard library gives it
        """Says nothing: one line for each webhook helps nobody."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, and room for a burst of them."""

    daemon_threads = True
    request_queue_size = 128


def run(version: str, sign: Signing, delivery: Sender) -> None:
    """Serves on 127.0.0.1:$PORT until SIGTERM; from the beginning again after SIGHUP."""
    prunella.start(release=version)
    handler = type("BoundRelayHandler", (RelayHandler,), {"relay": Relay(load(), sign, delivery)})
    again = threading.Event()
    with Server(("127.0.0.1", int(os.environ["PORT"])), handler) as server:

        def end(number: int, _: object) -> None:
            if number == signal.SIGHUP:
                again.set()
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGHUP, end)
        server.serve_forever(poll_interval=0.05)
    prunella.flush()
    if again.is_set():
        # Until the new start hears it, another SIGHUP must not kill it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
