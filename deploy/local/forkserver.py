"""Loads the heavy libraries once, then forks a process per service: faster than five starts, and the memory is shared.

Rule: this process never makes a thread, an event loop or a gRPC object; those are made after the fork. It takes orders
as JSON lines on standard input (`start`, `signal`) and tells on standard output what was started and what ended. It
dies with the supervisor, and the forks die with it. When its input ends, it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, field
from typing import Any

PRELOADED = (
    "asyncio",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
    "nats",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "httpx2",
    "msgspec.json",
    "pydantic",
    "prometheus_client",
    "starlette.applications",
    "uvicorn",
    "structlog",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "libs.common.database",
    "libs.common.bus",
    "libs.common.errands",
    "libs.common.settings",
    "libs.common.telemetry",
    "libs.common.rpc",
    "libs.common.runtime.assembly",
)
PROTOS = ("agent", "decider", "events", "ingest", "ops", "patcher", "queue")
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


@dataclass
class Order:
    """What to run in a fork: a module, as `python -m` would."""

    name: str
    module: str
    environ: dict[str, str]
    log: str


@dataclass
class Forks:
    """The forks that have not ended; `pipe` is what wakes us when one does."""

    pipe: tuple[int, int]
    names: dict[int, str] = field(default_factory=dict)

    def fork(self, order: Order) -> bool:
        """Forks; True in the new process."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in self.pipe:
                os.close(end)
            become(order, parent)
            return True
        self.names[pid] = order.name
        emit(event="started", name=order.name, pid=pid)
        return False

    def signal(self, pid: int, number: int) -> None:
        """Signals a fork that has not ended; its number cannot have been given to another before we reap it."""
        if pid in self.names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def reap(self) -> None:
        """Tells of every fork that ended."""
        for pid in list(self.names):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                emit(event="ended", name=self.names.pop(pid), pid=pid, status=os.waitstatus_to_exitcode(status))


def emit(**event: Any) -> None:
    """One line to the supervisor."""
    os.write(1, (json.dumps(event) + "\n").encode())


def become(order: Order, parent: int) -> None:
    """Makes a fresh fork a process of its own: session, death with the parent, log, environment."""
    os.setsid()
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        prctl(PR_SET_NAME, order.name.encode()[:15], 0, 0, 0)  # what `ps -o comm` and `top` show
        if os.getppid() != parent:
            os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    for source in (nothing, log):
        os.close(source)
    os.environ.clear()
    os.environ.update(order.environ)
    sys.argv = [order.module]


def preload() -> None:
    """Imports what all services use. What is missing is left to the fork, which can say so in its own log."""
    for name in (*PRELOADED, *(f"prunella.v1.{proto}_pb2_grpc" for proto in PROTOS)):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - whatever is wrong with a module, its user will meet it
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # the collector must not touch, and so copy, what is shared


def read_orders() -> Order | None:
    """Serves until the input ends (None), or returns in a fork with what it is to run."""
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    forks, text = Forks((awake, wake)), b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 4096)
            forks.reap()
        if 0 not in ready:
            continue
        received = os.read(0, 65536)
        if not received:
            return None
        *lines, text = (text + received).split(b"\n")
        for line in lines:
            order = execute(forks, json.loads(line))
            if order:
                return order


def execute(forks: Forks, message: dict[str, Any]) -> Order | None:
    """Carries out one order; the order itself when this is the fork it made."""
    if message["order"] == "signal":
        forks.signal(int(message["pid"]), int(message["number"]))
        return None
    order = Order(message["name"], message["module"], message["environ"], message["log"])
    return order if forks.fork(order) else None


def main() -> None:
    """Loads, serves; in a fork, runs the service as if it had been started by itself."""
    preload()
    if threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        print(f"cannot fork: a library made threads while it was loaded ({names})", file=sys.stderr)
        sys.exit(3)
    emit(event="ready")
    order = read_orders()
    if order:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
