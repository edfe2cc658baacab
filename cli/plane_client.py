"""The plane a command talks to: where it is, how to prove who asks, and what to say when it does not answer.

Rule: addresses come from PRUNELLA_<SERVICE>_ADDRESS with PRUNELLA_KEY when they are set, else from the plane that runs
for this checkout or environment. Whatever goes wrong ends as one line on standard error with the line to type, never as
a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    import grpc

    from prunella.v1.decider_pb2_grpc import DeciderServiceAsyncStub
    from prunella.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from prunella.v1.ops_pb2_grpc import OpsServiceAsyncStub
    from prunella.v1.patcher_pb2_grpc import PatcherServiceAsyncStub
    from prunella.v1.queue_pb2_grpc import QueueServiceAsyncStub

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
FAILED, USAGE_ERROR, UNREACHABLE = 1, 2, 3
TIMEOUT = 5.0
# Seconds between two looks of a watch, and how many may fail in a row: a watch outlives a restart.
WATCH_SECONDS, MAX_FAILURES = 2.0, 60
UNREACHABLE_REASONS = frozenset({"UNREACHABLE", "DEADLINE_EXCEEDED"})


class PlaneNotFound(Exception):  # noqa: N818 - a word of its own
    """No plane to talk to; the text says what to type."""


Work = Callable[["PlaneClient"], Awaitable[int | None]]


class PlaneClient:
    """Channels to the five services, opened when first used; `caller` is who asks (libs.common.access)."""

    def __init__(self, addresses: Mapping[str, str], key: str, caller: str = "operator") -> None:
        self.addresses = dict(addresses)
        self.key = key
        self.caller = caller
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service. Raises PlaneNotFound when nobody said where it is."""
        from libs.common import rpc

        address = self.addresses.get(service, "")
        if not address:
            raise PlaneNotFound(
                f"nobody says where {service} is; set PRUNELLA_{service.upper()}_ADDRESS to its host:port"
            )
        if service not in self._channels:
            operator = os.environ.get("PRUNELLA_OPERATOR", "") if self.caller == "operator" else ""
            self._channels[service] = rpc.channel(address, caller=self.caller, key=self.key, operator=operator)
        return self._channels[service]

    @property
    def ingest(self) -> IngestServiceAsyncStub:
        """Plugins, incidents, commands."""
        from prunella.v1.ingest_pb2_grpc import IngestServiceStub

        return IngestServiceStub(self.channel("ingest"))

    @property
    def decider(self) -> DeciderServiceAsyncStub:
        """Decisions."""
        from prunella.v1.decider_pb2_grpc import DeciderServiceStub

        return DeciderServiceStub(self.channel("decider"))

    @property
    def patcher(self) -> PatcherServiceAsyncStub:
        """Policy, releases, attempts."""
        from prunella.v1.patcher_pb2_grpc import PatcherServiceStub

        return PatcherServiceStub(self.channel("patcher"))

    @property
    def queue(self) -> QueueServiceAsyncStub:
        """The resolution queue."""
        from prunella.v1.queue_pb2_grpc import QueueServiceStub

        return QueueServiceStub(self.channel("queue"))

    @property
    def ops(self) -> OpsServiceAsyncStub:
        """Timeline and traces."""
        from prunella.v1.ops_pb2_grpc import OpsServiceStub

        return OpsServiceStub(self.channel("ops"))

    def method(self, rpc: str) -> Any:
        """The method `service.Method` of its service."""
        service, _, name = rpc.partition(".")
        return getattr(getattr(self, service), name)

    async def call(self, rpc: str, *, timeout: float = TIMEOUT, **fields: Any) -> Any:
        """The response of `service.Method` to a request of these fields. Raises what the service answers."""
        return await self.method(rpc)(request(rpc, **fields), timeout=timeout)

    async def close(self) -> None:
        """Closes what was opened."""
        for channel in self._channels.values():
            await channel.close()


def request(rpc: str, **fields: Any) -> Any:
    """The request of `service.Method`; one that changes something gets a request id of its own.

    Raises KeyError for an RPC that does not exist, ValueError for a field that its request does not have.
    """
    from google.protobuf.message_factory import GetMessageClass

    from libs.common.names import new_id

    service, _, method = rpc.partition(".")
    file = import_module(f"prunella.v1.{service}_pb2").DESCRIPTOR
    kind = GetMessageClass(file.services_by_name[f"{service.title()}Service"].methods_by_name[method].input_type)
    if "request_id" in kind.DESCRIPTOR.fields_by_name:
        fields.setdefault("request_id", new_id())
    return kind(**fields)


def find(environ: Mapping[str, str] = os.environ, caller: str = "operator") -> PlaneClient:
    """The plane to talk to, as `caller`. Raises PlaneNotFound."""
    from libs.common.errors import Invalid

    named = {service: environ.get(f"PRUNELLA_{service.upper()}_ADDRESS", "") for service in SERVICES}
    if any(named.values()):
        return PlaneClient(named, _key(environ), caller)
    running = plane_file(environ)
    if not running:
        from deploy.local.installation import HERE, START

        raise PlaneNotFound(f"no plane is running for {HERE}; start one with: {START}")
    addresses, key = running.get("addresses"), running.get("key")
    if not isinstance(addresses, dict) or not isinstance(key, str):
        raise Invalid("plane.json says neither addresses nor key; run: prunella doctor", reason="BAD_PLANE_FILE")
    return PlaneClient({str(name): str(address) for name, address in addresses.items()}, key, caller)


def plane_file(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the plane of this checkout says of itself; empty when none runs."""
    from deploy.local import state

    return state.locate(environ).plane()


def _key(environ: Mapping[str, str]) -> str:
    from pathlib import Path

    path = environ.get("PRUNELLA_KEY_FILE")
    key = environ.get("PRUNELLA_KEY") or (Path(path).read_text().strip() if path else "")
    try:
        bytes.fromhex(key)
    except ValueError:
        raise PlaneNotFound("PRUNELLA_KEY is no hexadecimal text; set it to the key of the services") from None
    if not key:
        raise PlaneNotFound("PRUNELLA_KEY is not set; it is the key the services share")
    return key


def run(work: Work, *, watch: bool = False) -> None:
    """Runs one command against the plane, again and again with `watch`, and ends with its exit code."""

    async def main() -> int:
        plane = find()
        try:
            return await (_again(plane, work) if watch else work(plane)) or 0
        finally:
            await plane.close()

    guarded(lambda: asyncio.run(main()))


async def _again(plane: PlaneClient, work: Work) -> int | None:
    """Looks every two seconds, in place on a terminal; a service that is away for a while ends nothing."""
    from libs.common.errors import Unavailable

    screen, failures = sys.stdout, 0
    while True:
        page = _Page() if screen.isatty() else screen
        try:
            with contextlib.redirect_stdout(page):
                await work(plane)
            failures = 0
        except Unavailable as problem:
            failures += 1
            if problem.reason not in UNREACHABLE_REASONS or failures > MAX_FAILURES:
                raise
        if isinstance(page, _Page) and not failures:
            screen.write(f"\x1b[H\x1b[2J{page.getvalue()}")
        screen.flush()
        await asyncio.sleep(WATCH_SECONDS)


class _Page(io.StringIO):
    """What is shown at once, so that nothing flickers; whoever asks hears that it is a terminal."""

    def isatty(self) -> bool:
        return True


def guarded(work: Callable[[], int]) -> None:
    """Runs `work` and ends with its exit code; every known trouble becomes one line."""
    from libs.common.errors import Problem, Unavailable

    try:
        code = work()
    except PlaneNotFound as absent:
        fail(str(absent), UNREACHABLE)
    except Problem as problem:
        away = isinstance(problem, Unavailable) and problem.reason in UNREACHABLE_REASONS
        fail(problem.message + ("; look with: prunella doctor" if away else ""), UNREACHABLE if away else FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Whoever read us (head, less) has seen enough.
        sys.stderr.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    if code:
        raise typer.Exit(code)


def fail(text: str, code: int = FAILED) -> NoReturn:
    """One line on standard error, then the end; what a terminal would obey is not in it."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    typer.echo(f"prunella: {line}", err=True)
    raise typer.Exit(code) from None
