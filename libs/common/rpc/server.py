"""A service's gRPC server: bounded, guarded, honest about its health.

NOT_SERVING until the deep check passes, again whenever it fails, and before draining. The check runs every two seconds
(four times a second until it passes first); what it says when it fails is logged once and kept in `why`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from libs.common.cancellation import cancel_and_wait
from libs.common.errors import Problem, Refused
from libs.common.rpc.guard import Guard
from libs.common.rpc.in_process import InProcess
from libs.common.telemetry import Telemetry

KIB: Final = 1024
MIB: Final = 1024 * KIB
RECHECK_SECONDS: Final = 2.0
FIRST_RECHECK_SECONDS: Final = 0.25
CHECK_TIMEOUT: Final = 5.0
GRACE_SECONDS: Final = 3.0
LONGEST_DETAIL: Final = 300

# (the generated add_…Servicer_to_server, the servicer, the full name of the service)
Servicer = tuple[Callable[[Any, grpc.aio.Server], None], Any, str]

_log = structlog.get_logger(__name__)


def server_options(max_message: int, streams_per_connection: int) -> list[tuple[str, int]]:
    """Bounds of every server: message size, buffers, silent and idle connections, ping floods."""
    return [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", 16 * MIB),
        ("grpc.max_metadata_size", 16 * KIB),
        ("grpc.so_reuseport", 0),
        # With probing, a slow reader makes us buffer megabytes per stream.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.max_connection_age_ms", 30 * 60_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
        ("grpc.max_concurrent_streams", streams_per_connection),
    ]


class Server:
    """The gRPC server of one service.

    `address` is host:port, port 0 lets the kernel choose. `deep_check` raises when the service cannot do its work now.
    `max_message` bounds what is received, in bytes; `max_rpcs` how many calls run at once (None: no bound).
    """

    def __init__(
        self,
        name: str,
        address: str,
        servicers: Sequence[Servicer],
        *,
        key: str,
        deep_check: Callable[[], Awaitable[object]],
        telemetry: Telemetry | None = None,
        max_message: int = MIB,
        max_rpcs: int | None = None,
        streams_per_connection: int = 1000,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self.name = f"{name} rpc"
        self.service = name
        self.address = address
        self.port = 0
        self.serving = False
        self.why = "the deep check has not run yet"
        self._servicers = servicers
        self._deep_check = deep_check
        self._recheck = recheck_seconds
        self._health = health.aio.HealthServicer()
        self._guard = Guard(telemetry or Telemetry(name), key)
        self._options = server_options(max_message, streams_per_connection)
        self._max_rpcs = max_rpcs
        self._server: grpc.aio.Server | None = None
        self._checking: asyncio.Task[None] | None = None

    @property
    def bound(self) -> str:
        """host:port where it listens; known after the start."""
        return f"{self.address.rpartition(':')[0]}:{self.port}"

    def in_process(self) -> InProcess:
        """The same methods for callers in this process."""
        gathered = _Gathered()
        for add, servicer, _ in self._servicers:
            add(servicer, gathered)  # type: ignore[arg-type] # it only ever registers
        return InProcess(gathered.handlers, self._guard)

    async def start(self) -> int:
        """Listen, and give the port; Refused when the port is taken."""
        server = grpc.aio.server(
            interceptors=[self._guard], options=self._options, maximum_concurrent_rpcs=self._max_rpcs
        )
        for add, servicer, _ in self._servicers:
            add(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*self._names(), reflection.SERVICE_NAME, health.SERVICE_NAME), server)
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = _bind(server, self.service, self.address)
        await server.start()
        self._server = server
        self._checking = asyncio.create_task(self._keep_checking(), name=f"{self.name} health")
        return self.port

    async def drain(self) -> None:
        """Say NOT_SERVING for good; calls are still answered."""
        await self._stop_checking()
        self.serving = False
        self.why = "draining"
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Drain, take no new calls, and give those under way `grace` seconds."""
        await self.drain()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace)

    async def _keep_checking(self) -> None:
        while True:
            await self._check()
            never = not self.serving and not self._was_serving
            await asyncio.sleep(min(FIRST_RECHECK_SECONDS, self._recheck) if never else self._recheck)

    _was_serving = False

    async def _check(self) -> None:
        why = ""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._deep_check()
        except Exception as error:  # noqa: BLE001 (whatever it is, we cannot serve)
            why = _sentence(error)
        if why and why != self.why:
            _log.warning("not serving", service=self.service, why=why)
        if not why and not self.serving:
            _log.info("serving", service=self.service, address=self.bound)
        self.why = why
        if self.serving != (not why):
            self.serving = not why
            self._was_serving = True
            status = health_pb2.HealthCheckResponse
            await self._tell(status.SERVING if self.serving else status.NOT_SERVING)

    async def _stop_checking(self) -> None:
        if self._checking is not None:
            checking, self._checking = self._checking, None
            await cancel_and_wait([checking])

    async def _tell(self, status: int) -> None:
        for name in ("", *self._names()):
            await self._health.set(name, status)

    def _names(self) -> tuple[str, ...]:
        return tuple(name for _, _, name in self._servicers)


class _Gathered:
    """Stands where a server would, and keeps what servicers register."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self.handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The generic handlers say the same."""


def _bind(server: grpc.aio.Server, service: str, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise Refused(
            f"{service} cannot listen on {address}: the port is taken or the address is not ours. Stop the program "
            "that holds it, or set PRUNELLA_LISTEN to another host:port (port 0 lets the kernel choose)",
            reason="PORT_TAKEN",
            service=service,
            address=address,
        )
    return port


def _sentence(error: Exception) -> str:
    if isinstance(error, Problem):
        return error.message[:LONGEST_DETAIL]
    if isinstance(error, TimeoutError):
        return f"the deep check took more than {CHECK_TIMEOUT:.0f} s"
    return f"{type(error).__name__}: {error}"[:LONGEST_DETAIL]
