"""The test kit: real servers, a database and a NATS of one's own, the five services in one process.

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

from deploy.local.database_pool import DatabasePool
from deploy.local.nats import Nats
from deploy.local.ports import free_ports
from deploy.local.servers import Servers
from libs.common.clock import Clock, ManualClock, SystemClock
from libs.common.database import Database
from libs.common.facts import fact_name
from libs.common.names import new_id
from libs.common.settings import load
from prunella.v1 import agent_pb2, ingest_pb2, ingest_pb2_grpc
from prunella.v1.events_pb2 import Event
from prunella_agent.credential import Credential
from prunella_agent.enroll import enroll
from prunella_agent.session import Session, open_channel

__all__ = ["BackingServices", "FakeAgent", "ManualClock", "Plane", "Servers", "SystemClock", "until"]

if TYPE_CHECKING:
    from libs.common.runtime import Service

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
# How often a poll looks: soon at first, then a twentieth of the time it has waited, which leaves two cores to the work.
LOOK, LONGEST_LOOK, SHARE = 0.02, 0.25, 0.05
PROBATION_BEATS = 6
PROBATION_BEAT_SECONDS = 0.15
_POOLS: dict[int, DatabasePool] = {}


async def until(condition: Callable[[], Any], timeout: float = 10.0, *, what: str = "") -> Any:
    """Polls until the condition (plain or async) is truthy and returns that. Raises AssertionError after `timeout`."""
    began = asyncio.get_running_loop().time()
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        waited = asyncio.get_running_loop().time() - began
        if waited > timeout:
            raise AssertionError(f"not within {timeout} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(min(max(LOOK, SHARE * waited), LONGEST_LOOK))


@dataclass
class BackingServices:
    """A migrated, empty database and a NATS server that nobody else uses."""

    servers: Servers
    name: str
    nats: Nats
    folder: Path
    pool: DatabasePool

    @classmethod
    async def make(cls, servers: Servers) -> BackingServices:
        """A fresh ground; give it back with `discard`."""
        pool = _POOLS.setdefault(id(servers), DatabasePool(servers))
        name = f"t_{secrets.token_hex(5)}"
        folder = Path(tempfile.mkdtemp(prefix="prunella-ground-"))
        port, monitor = free_ports(2)
        nats = Nats(folder, port, monitor, secrets.token_hex(8), folder / "nats.log", durable=False)
        name, _ = await asyncio.gather(pool.acquire(name), nats.start())
        return cls(servers, name, nats, folder, pool)

    async def discard(self) -> None:
        """Stops the NATS server and leaves the database to the next test."""
        await self.nats.stop()
        await self.pool.release(self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def nats_url(self) -> str:
        """Address of this ground's NATS."""
        return self.nats.url

    def url(self, service: str = "owner") -> str:
        """Address of this ground's database for a service's role, or for the owner."""
        return self.servers.postgres_url(service, self.name)


@dataclass
class FakeAgent:
    """An agent that heals as soon as it may switch: the real session and real permits, and no process to restart.

    `heals`: whether webhooks work after a switch; `traffic`: how many of them each beat right after it has. `obeys`:
    False for an agent that takes commands and does nothing.
    """

    credential: Credential
    address: str
    channel: grpc.aio.Channel
    package: str = "relay"
    release: str = "1.2.0"
    generation: int = 0
    digest: str = ""
    heals: bool = True
    traffic: int = 20
    obeys: bool = True
    attempts: int = 0
    failures: int = 0
    commands: list[agent_pb2.Command] = field(default_factory=list)
    session: Session = field(init=False)
    _before: tuple[str, int, str] = ("", 0, "")
    _receipts: dict[str, agent_pb2.CommandResult] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.session = Session(
            self.address, self.credential, hello=self._hello, on_command=self._take, channel=self.channel
        )

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return self.credential.plugin

    def _hello(self) -> agent_pb2.Hello:
        able = ("update", "rollback", "restart", "health_check", "commit")
        return agent_pb2.Hello(
            agent_version="fake", capabilities=able, package=self.package, release=self.release,
            generation=self.generation,
        )  # fmt: skip

    def beat(
        self, *, webhooks: int = 20, failed: int = 0, health: agent_pb2.Health.ValueType = agent_pb2.HEALTH_HEALTHY
    ) -> None:
        """One beat with so many more webhooks, `failed` of which failed."""
        self.attempts += webhooks
        self.failures += failed
        made = agent_pb2.Beat(
            webhook_attempts=self.attempts, webhook_failures=self.failures, release=self.release,
            generation=self.generation, digest=self.digest, health=health,
        )  # fmt: skip
        made.time.GetCurrentTime()
        self.session.beat(made)

    def error(self, message: str = "no cart", *, type: str = "TypeError", times: int = 1, **fields: Any) -> None:  # noqa: A002
        """So many more errors of one kind, told as the real agent reports them."""
        self.session.report_errors(agent_pb2.ErrorReport(type=type, message=message, occurrences=times, **fields))

    async def acknowledged(self) -> None:
        """Waits until every beat and every error so far is acknowledged."""
        await until(lambda: self.session.pending_beats == 0 and self.session.errors.pending == 0)

    async def _take(self, command: agent_pb2.Command) -> None:
        if command.id in self._receipts:
            self.session.report(self._receipts[command.id])
            return
        self.commands.append(command)
        if self.obeys and [known.id for known in self.commands].count(command.id) == 1:
            task = asyncio.create_task(self._do(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, command: agent_pb2.Command) -> None:
        if command.kind == agent_pb2.COMMAND_KIND_COMMIT:
            self._report(command, agent_pb2.COMMAND_OUTCOME_COMMITTED)
        elif command.kind == agent_pb2.COMMAND_KIND_ROLLBACK:
            self.release, self.generation, self.digest = self._before
            self._report(command, agent_pb2.COMMAND_OUTCOME_REVERTED)
        elif command.kind == agent_pb2.COMMAND_KIND_HEALTH_CHECK:
            self._report(command, agent_pb2.COMMAND_OUTCOME_DONE, "healthy")
        else:
            await self._switch(command)

    async def _switch(self, command: agent_pb2.Command) -> None:
        answer = await self.session.begin_apply(command)
        if not answer.granted:
            self._report(command, agent_pb2.COMMAND_OUTCOME_REFUSED, answer.gate)
            return
        self._before = (self.release, self.generation, self.digest)
        self.release = command.release or self.release
        self.generation, self.digest = command.generation, command.digest or self.digest
        self._report(command, agent_pb2.COMMAND_OUTCOME_APPLIED)
        for _ in range(PROBATION_BEATS):
            self.beat(webhooks=self.traffic, failed=0 if self.heals else 3 * self.traffic // 5)
            # Beats of one moment would be folded into one window.
            await asyncio.sleep(PROBATION_BEAT_SECONDS)

    def _report(
        self, command: agent_pb2.Command, outcome: agent_pb2.CommandOutcome.ValueType, detail: str = ""
    ) -> None:
        result = agent_pb2.CommandResult(
            command=command.id, attempt=command.attempt, generation=command.generation, fence=command.fence,
            outcome=outcome, detail=detail, release=self.release, digest=self.digest,
        )  # fmt: skip
        result.time.GetCurrentTime()
        self._receipts[command.id] = result
        self.session.report(result)


@dataclass
class Plane:
    """All five services in this process. `environ` are settings on top of the defaults for tests."""

    backing: BackingServices
    clock: Clock = field(default_factory=SystemClock)
    environ: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = SERVICES
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    services: dict[str, Service] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    agents: list[FakeAgent] = field(default_factory=list)
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    _owner: Database | None = None

    async def start(self) -> Plane:
        """Starts every service and waits until each one is ready."""
        ports = free_ports(2 * len(SERVICES))
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=False)}
        self._http = dict(zip(SERVICES, ports[len(SERVICES) :], strict=False))
        pooled = self.environ.get("PRUNELLA_DATABASE_POOLER") == "transaction"
        self._owner = Database(self.backing.url(), clock=SystemClock(), pool_size=2, pooled=pooled)
        for name in self.names:
            await self.start_service(name)
        return self

    async def start_service(self, name: str, *, replica: bool = False) -> Service:
        """Starts one service; also after `stop_service`, on the same address. A replica has an address of its own."""
        module = importlib.import_module(f"services.{name}.service")
        anywhere = {"PRUNELLA_LISTEN": "127.0.0.1:0", "PRUNELLA_HTTP_LISTEN": "127.0.0.1:0"} if replica else {}
        service: Service = module.build(load(module.Settings, self.settings(name) | anywhere), self.clock)
        await service.start()
        await until(lambda: service.server.serving, 20.0, what=f"{name} is serving")
        self.services[f"{name} replica" if replica else name] = service
        return service

    async def stop_service(self, name: str) -> None:
        """Stops one service in order."""
        await self.services.pop(name).stop()

    async def stop(self) -> None:
        """Stops everything, last started first."""
        for agent in self.agents:
            await agent.session.abort()
        for channel in self._channels.values():
            await channel.close()
        for name in reversed(list(self.services)):
            await self.stop_service(name)
        if self._owner:
            await self._owner.close()

    def settings(self, name: str) -> dict[str, str]:
        """The environment of one service."""
        folder = self.backing.folder / name
        folder.mkdir(exist_ok=True)
        own = {
            "DATABASE_URL": self.backing.url(name),
            "NATS_URL": self.backing.nats_url,
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

    async def agent(self, label: str, *, release: str = "1.2.0", package: str = "relay") -> FakeAgent:
        """An enrolled agent with a session, connected."""
        channel = self._channels.setdefault("agents", open_channel(self.addresses["ingest"]))
        ingest: Any = ingest_pb2_grpc.IngestServiceStub(self.channel("ingest"))
        request = ingest_pb2.CreateEnrollmentTokenRequest(
            request_id=new_id(), merchant=f"merchant-{label}", package=package, label=label
        )
        token = (await ingest.CreateEnrollmentToken(request, timeout=10)).token
        credential = await enroll(
            channel, token=token, enrollment_key=new_id(), package=package, release=release, merchant=request.merchant
        )
        agent = FakeAgent(credential, self.addresses["ingest"], channel, package=package, release=release)
        agent.session.start()
        self.agents.append(agent)
        await until(lambda: agent.session.connected)
        return agent

    async def facts(self, *names: str, plugin: str = "", incident: str = "") -> list[Event]:
        """Facts recorded so far, oldest first."""
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

    async def wait_for_fact(self, name: str, timeout: float = 10.0, *, times: int = 1, plugin: str = "") -> Event:
        """Waits until a fact was recorded `times` times and returns the last."""

        async def look() -> list[Event] | None:
            found = await self.facts(name, plugin=plugin)
            return found if len(found) >= times else None

        try:
            events: list[Event] = await until(look, timeout, what=f"{name} recorded {times} times")
        except AssertionError as error:
            history = [
                f"{event.source}: {fact_name(event)}: {event.reason}" for event in await self.facts(plugin=plugin)
            ]
            raise AssertionError("\n".join([str(error), "so far:", *history])) from None
        return events[-1]

    async def clear_inbox(self) -> None:
        """Empties every inbox: all facts could have their effect again."""
        assert self._owner, "start the plane first"
        await self._owner.transaction(lambda tx: tx.run("DELETE FROM bus.inbox"))

    async def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        """Rows, as the owner sees them; for checkers."""
        assert self._owner, "start the plane first"
        async with self._owner.reading() as reading:
            return await reading.all(statement, **values)
