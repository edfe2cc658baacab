"""Ingest by itself on real servers: a patcher that answers as told, and agents that speak the raw protocol."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common import rpc
from libs.common.clock import Clock, SystemClock
from libs.common.errors import Problem
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import agent_pb2_grpc, ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc

ARTIFACT = bytes(range(256)) * 1000


class ScriptedPatcher(patcher_pb2_grpc.PatcherServiceServicer):
    """Permits what it is told to permit, and remembers who asked."""

    def __init__(self) -> None:
        self.answer: patcher_pb2.AuthorizeApplyResponse | Problem = patcher_pb2.AuthorizeApplyResponse(
            granted=True, permit="p-1"
        )
        self.asked: list[patcher_pb2.AuthorizeApplyRequest] = []

    async def AuthorizeApply(self, request: Any, context: Any) -> patcher_pb2.AuthorizeApplyResponse:
        self.asked.append(request)
        if isinstance(self.answer, Problem):
            raise self.answer
        return self.answer

    async def FetchRelease(self, request: Any, context: Any) -> AsyncIterator[patcher_pb2.FetchReleaseResponse]:
        for offset in range(request.offset, len(ARTIFACT), 64 * 1024):
            chunk = ARTIFACT[offset : offset + 64 * 1024]
            yield patcher_pb2.FetchReleaseResponse(chunk=chunk, offset=offset, total_size=len(ARTIFACT))


async def _nothing() -> None:
    return None


@dataclass
class Agent:
    """One raw stream; what the plane sends is collected in `received`."""

    stub: agent_pb2_grpc.AgentGatewayAsyncStub
    plugin: str
    secret: str
    boot: str = field(default_factory=new_id)
    received: list[pb.ConnectResponse] = field(default_factory=list)
    sequence: int = 0
    call: Any = None
    ended: asyncio.Task[None] | None = None
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Plugin {self.plugin}:{self.secret}"),)

    async def connect(self) -> Agent:
        self.received.clear()
        self.call = self.stub.Connect(metadata=self.metadata)
        hello = pb.Hello(boot_id=self.boot, agent_version="test", capabilities=["update"], package="relay")
        await self.call.write(pb.ConnectRequest(hello=hello))
        self.ended = asyncio.create_task(self._read())
        await self.receives("settings")
        return self

    async def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            while isinstance(message := await self.call.read(), pb.ConnectResponse):
                self.received.append(message)

    async def receives(self, kind: str, check: Callable[[Any], bool] = lambda _: True, timeout: float = 10.0) -> Any:
        """Waits for a message of a kind."""

        def look() -> Any:
            found = [getattr(m, kind) for m in self.received if m.WhichOneof("message") == kind]
            return next((one for one in found if check(one)), None)

        return await until(look, timeout, what=f"the agent receives {kind}; it has {self.received}")

    def beat(self, **values: Any) -> pb.Beat:
        """The next beat; counters given as differences are added up."""
        self.sequence += 1
        for name in ("errors", "webhook_attempts", "webhook_failures", "signature_failures"):
            self.counted[name] = self.counted.get(name, 0) + values.pop(name, 0)
        values = {"release": "1.2.0", "health": pb.HEALTH_HEALTHY} | self.counted | values
        return pb.Beat(boot_id=self.boot, sequence=self.sequence, **values)

    async def send(self, message: Any) -> None:
        kinds = {
            pb.Beat: "beat",
            pb.CommandResult: "result",
            pb.BeginApply: "begin_apply",
            pb.CommandReceived: "received",
            pb.Goodbye: "goodbye",
        }
        await self.call.write(pb.ConnectRequest(**{kinds[type(message)]: message}))

    async def beats(self, count: int = 1, **values: Any) -> None:
        """Sends beats and waits until the last is durable."""
        for _ in range(count):
            await self.send(self.beat(**values))
        wanted = self.sequence
        await self.receives("ack", lambda ack: ack.boot_id == self.boot and ack.sequence >= wanted)

    async def leave(self) -> None:
        if self.call is not None:
            self.call.cancel()
        if self.ended is not None:
            await asyncio.gather(self.ended, return_exceptions=True)


@dataclass
class Alone:
    """Ingest without siblings."""

    plane: Plane
    patcher: ScriptedPatcher
    agents: list[Agent] = field(default_factory=list)
    _server: rpc.Server | None = None
    _channel: grpc.aio.Channel | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, servers: Servers, clock: Clock | None = None, **environ: str) -> AsyncIterator[Alone]:
        """Ingest on a ground of its own, given back at the end."""
        backing = await BackingServices.make(servers)
        made = await cls.make(backing, clock, **environ)
        try:
            yield made
        finally:
            await made.stop()
            await backing.discard()

    @classmethod
    async def make(cls, backing: BackingServices, clock: Clock | None = None, **environ: str) -> Alone:
        told = {"INGEST_BEAT_SECONDS": "1", "INGEST_RELEASE_KEYS": f"{'a' * 64},{'b' * 64}"}
        # Tests that share a ground break one plugin after the other; only those about storms want one.
        told |= {"INGEST_STORM_LEAST": "1000"} | environ
        plane = Plane(backing, clock=clock or SystemClock(), environ=told, names=("ingest",))
        await plane.start()
        patcher = ScriptedPatcher()
        add = patcher_pb2_grpc.add_PatcherServiceServicer_to_server
        server = rpc.Server(
            "patcher",
            plane.addresses["patcher"],
            [(add, patcher, "prunella.v1.PatcherService")],
            key=plane.key,
            deep_check=_nothing,
        )
        await server.start()
        return cls(plane, patcher, _server=server)

    async def stop(self) -> None:
        for agent in self.agents:
            await agent.leave()
        if self._channel:
            await self._channel.close()
        if self._server:
            await self._server.stop(0)
        await self.plane.stop()

    @property
    def ctx(self) -> Any:
        return self.plane.services["ingest"].ctx

    @property
    def gateway(self) -> agent_pb2_grpc.AgentGatewayAsyncStub:
        """The gateway without any credential; agents bring their own."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.plane.addresses["ingest"])
        return agent_pb2_grpc.AgentGatewayStub(self._channel)  # type: ignore[return-value]

    def ask(self, caller: str = "operator") -> ingest_pb2_grpc.IngestServiceAsyncStub:
        return ingest_pb2_grpc.IngestServiceStub(self.plane.channel("ingest", caller))  # type: ignore[return-value]

    async def token(self, **values: Any) -> str:
        given = {"merchant": "acme", "package": "relay"} | values
        return (await self.ask().CreateEnrollmentToken(ingest_pb2.CreateEnrollmentTokenRequest(**given))).token

    async def enrolled(self, label: str = "", package: str = "relay") -> Agent:
        request = pb.EnrollRequest(
            token=await self.token(label=label, package=package), enrollment_key=new_id(), release="1.2.0"
        )
        answer = await self.gateway.Enroll(request)
        agent = Agent(self.gateway, answer.plugin, answer.secret)
        self.agents.append(agent)
        return agent

    async def agent(self, label: str = "") -> Agent:
        return await (await self.enrolled(label)).connect()

    async def plugin(self, agent: Agent) -> ingest_pb2.Plugin:
        return (await self.ask().GetPlugin(ingest_pb2.GetPluginRequest(name=f"plugins/{agent.plugin}"))).plugin

    async def incidents(self, agent: Agent) -> list[ingest_pb2.Incident]:
        request = ingest_pb2.ListIncidentsRequest(plugin=agent.plugin)
        return list((await self.ask().ListIncidents(request)).incidents)

    async def issue(self, agent: Agent, kind: int = pb.COMMAND_KIND_UPDATE, **values: Any) -> pb.Command:
        if kind == pb.COMMAND_KIND_UPDATE:
            values = {"release": "1.2.3", "digest": "d" * 64, "size": len(ARTIFACT), "envelope": b"{}"} | values
        values = {"request_id": new_id(), "attempt": "a-1"} | values
        request = ingest_pb2.IssueCommandRequest(plugin=agent.plugin, kind=kind, **values)
        return (await self.ask("patcher").IssueCommand(request)).command

    async def sweep(self, name: str) -> int:
        from services.ingest.sweeps import SWEEPS

        return await SWEEPS[name][1](self.ctx, self.ctx.clock.now())
