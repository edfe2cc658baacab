"""An HTTP server as a part of a service: started and stopped with it, signals left alone.

Every service answers /healthz, as its gRPC health says it, and /metrics; some answer more.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Protocol

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from libs.common.errors import Refused
from libs.common.telemetry import metrics_app

STOP_SECONDS = 2
CONCURRENT = 128
BACKLOG = 256


class Serving(Protocol):
    """A server that knows how it is."""

    serving: bool
    why: str


def health_routes(server: Serving) -> list[BaseRoute]:
    """What every service answers: /healthz with 200 while it serves, else 503 and why; /metrics."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok") if server.serving else PlainTextResponse(server.why, 503)

    return [Route("/healthz", healthz, methods=["GET"]), Mount("/metrics", metrics_app())]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process belongs to the runtime; it alone hears signals."""
        yield


class HttpServer:
    """Serves an ASGI application at host:port; port 0 lets the kernel choose. `serves_metrics`: it answers /metrics."""

    def __init__(self, app: ASGIApp, address: str, *, name: str = "http", serves_metrics: bool = True) -> None:
        self.name = name
        self.address = address
        self.port = 0
        self.serves_metrics = serves_metrics
        self._task: asyncio.Task[None] | None = None
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONCURRENT,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=STOP_SECONDS,
                h11_max_incomplete_event_size=16384,
            )
        )

    async def start(self) -> int:
        """Listen, and give the port; Refused when the address cannot be had."""
        host, _, port = self.address.rpartition(":")
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), int(port)))
        except OSError as error:
            listening.close()
            raise Refused(
                f"cannot listen on {self.address} ({error.strerror}): stop the program that holds it, or set "
                "PRUNELLA_HTTP_LISTEN to another host:port (port 0 lets the kernel choose)",
                reason="PORT_TAKEN",
                address=self.address,
            ) from error
        # From here on nobody is refused: who connects before the loop serves waits in the backlog.
        listening.listen(BACKLOG)
        self.port = int(listening.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name=self.name)
        return self.port

    async def stop(self) -> None:
        """Let open requests end, for up to 2 s."""
        self._server.should_exit = True
        if self._task is not None:
            task, self._task = self._task, None
            await asyncio.wait({task}, timeout=STOP_SECONDS + 1)
            task.cancel()
