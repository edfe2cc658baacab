"""A sink for smoke tests: verifies signatures over the bytes as they came, and remembers what it took.

Rule: the signature is HMAC-SHA256 of the raw body; what does not verify is answered 401.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIGNATURE_HEADER = "X-Relay-Signature"


def signature(body: bytes, secret: bytes) -> str:
    """What the sink expects for these bytes."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


class CheckSink:
    """Listens on a free port of this machine until closed."""

    def __init__(self, secret: bytes) -> None:
        self.taken: list[bytes] = []
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                good = hmac.compare_digest(self.headers.get(SIGNATURE_HEADER, ""), signature(body, secret))
                if good:
                    taken.append(body)
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the standard library has it
                """Says nothing: the smoke test prints its own lines."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/check"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
