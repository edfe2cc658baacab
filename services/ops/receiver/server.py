"""An HTTP server as a part of the service: started and stopped with it, signals left alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from libs.common.errors import Unavailable

STOP = 2  # seconds open requests may take when the service stops
CONCURRENT = 128
BACKLOG = 256


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process belongs to the runtime; it alone hears signals."""
        yield


class HttpServer:
    """Serves an application at host:port; port 0 lets the kernel choose."""

    name = "http"

    def __init__(self, app: ASGIApp, address: str) -> None:
        self.address = address
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONCURRENT,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=STOP,
                h11_max_incomplete_event_size=16384,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; `port` says where. Raises Unavailable when the address cannot be had."""
        host, _, port = self.address.rpartition(":")
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), int(port)))
        except OSError as error:
            listening.close()
            raise Unavailable(
                f"cannot listen on {self.address} ({error.strerror}); free it or set PRUNELLA_HTTP_LISTEN",
                reason="PORT_TAKEN",
                address=self.address,
            ) from error
        # From here on nobody is refused: who connects before the loop serves waits in the backlog.
        listening.listen(BACKLOG)
        self.port = int(listening.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="ops http")

    async def stop(self) -> None:
        """Lets open requests end, up to 2 s."""
        self._server.should_exit = True
        if self._task:
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._task, STOP + 1)
