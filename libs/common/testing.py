"""What tests stand on: real servers, a ground of one's own, the five services in one process.

Rule: nothing here pretends. `Ground` is an empty migrated database and a NATS server of its own; `Plane` runs the real
services on it. Waiting is polling with a deadline, never sleeping and hoping.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from deploy.local.nats import Nats
from deploy.local.ports import free_ports
from deploy.local.servers import Servers
from libs.common.clock import Clock, ManualClock, SystemClock
from libs.common.database import Database
from libs.common.facts import fact_name
from prunella.v1.events_pb2 import Event

__all__ = ["Ground", "ManualClock", "Plane", "Servers", "SystemClock", "until"]

if TYPE_CHECKING:
    from libs.common.runtime import Service

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
# How often a poll looks: long enough to leave two cores to the work.
LOOK = 0.02


async def until(condition: Callable[[], Any], timeout: float = 10.0, *, what: str = "") -> Any:
    """Polls until the condition (plain or async) is truthy and returns that. Raises AssertionError after `timeout` s."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(LOOK)


@dataclass
class Ground:
    """A migrated, empty database and a NATS server that nobody else uses."""

    servers: Servers
    name: str
    nats: Nats
    folder: Path

    @classmethod
    async def make(cls, servers: Servers) -> Ground:
        """A fresh ground; give it back with `discard`."""
        name = f"t_{secrets.token_hex(5)}"
        folder = Path(tempfile.mkdtemp(prefix="prunella-ground-"))
        port, monitor = free_ports(2)
        nats = Nats(folder, port, monitor, secrets.token_hex(8), folder / "nats.log", durable=False)
        await asyncio.gather(servers.new_database(name), nats.start())
        return cls(servers, name, nats, folder)

    async def discard(self) -> None:
        """Stops the NATS server and drops the database."""
        await self.nats.stop()
        await self.servers.drop_database(self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def nats_url(self) -> str:
        """Address of this ground's NATS."""
        return self.nats.url

    def url(self, service: str = "owner") -> str:
        """Address of this ground's database for a service's role, or for the owner."""
        return self.servers.postgres_url(service, self.name)


@dataclass
class Plane:
    """All five services in this process. `environ` are settings on top of the defaults for tests."""

    ground: Ground
    clock: Clock = field(default_factory=SystemClock)
    environ: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = SERVICES
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    services: dict[str, Service] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    _owner: Database | None = None

    async def start(self) -> Plane:
        """Starts every service and waits until each one is ready."""
        ports = free_ports(2 * len(SERVICES))
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=False)}
        self._http = dict(zip(SERVICES, ports[len(SERVICES) :], strict=False))
        self._owner = Database(self.ground.url(), clock=SystemClock(), pool_size=2)
        for name in self.names:
            await self.begin(name)
        return self

    async def begin(self, name: str) -> Service:
        """Starts one service; also after `end`, on the same address."""
        module = importlib.import_module(f"services.{name}.service")
        service: Service = module.build(module.load(self.settings(name)), self.clock)
        await service.start()
        self.services[name] = service
        return service

    async def end(self, name: str) -> None:
        """Stops one service in order."""
        await self.services.pop(name).stop()

    async def stop(self) -> None:
        """Stops everything, last started first."""
        for channel in self._channels.values():
            await channel.close()
        for name in reversed(list(self.services)):
            await self.end(name)
        if self._owner:
            await self._owner.close()

    def settings(self, name: str) -> dict[str, str]:
        """The environment of one service."""
        folder = self.ground.folder / name
        folder.mkdir(exist_ok=True)
        own = {
            "DATABASE_URL": self.ground.url(name),
            "NATS_URL": self.ground.nats_url,
            "PRUNELLA_KEY": self.key,
            "PRUNELLA_LISTEN": self.addresses[name],
            "PRUNELLA_HTTP_LISTEN": f"127.0.0.1:{self._http[name]}",
            "PRUNELLA_OTLP": f"http://127.0.0.1:{self._http['ops']}/v1/traces" if "ops" in self.names else "",
            "PRUNELLA_STATE": str(folder),
        }
        return (
            own | {f"PRUNELLA_{n.upper()}_ADDRESS": place for n, place in self.addresses.items()} | dict(self.environ)
        )

    def channel(self, name: str, caller: str = "operator") -> grpc.aio.Channel:
        """A channel to a service, as `caller`; kept until `stop`."""
        from libs.common import rpc

        kept = f"{name} as {caller}"
        if kept not in self._channels:
            self._channels[kept] = rpc.channel(self.addresses[name], caller=caller, key=self.key)
        return self._channels[kept]

    async def facts(self, *names: str, plugin: str = "", incident: str = "") -> list[Event]:
        """Facts told so far, oldest first."""
        assert self._owner, "start the plane first"
        async with self._owner.reading() as reading:
            rows = await reading.all("SELECT payload FROM bus.facts ORDER BY time, id")
        events = [Event.FromString(row.payload) for row in rows]
        return [
            event
            for event in events
            if (not names or fact_name(event) in names)
            and plugin in {"", event.plugin}
            and incident in {"", event.incident}
        ]

    async def told(self, name: str, timeout: float = 10.0, *, times: int = 1, plugin: str = "") -> Event:
        """Waits until a fact was told `times` times and returns the last."""

        async def look() -> list[Event] | None:
            found = await self.facts(name, plugin=plugin)
            return found if len(found) >= times else None

        return (await until(look, timeout, what=f"{name} told {times} times"))[-1]  # type: ignore[no-any-return]

    async def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        """Rows, as the owner sees them; for checkers."""
        assert self._owner, "start the plane first"
        async with self._owner.reading() as reading:
            return await reading.all(statement, **values)
