"""The patcher alone on real PostgreSQL and NATS: the test speaks for ingest and for the agent behind it.

`ingest.incidents` and `ingest.plugins` are what ingest would answer. With `agent=True` every command is carried out
at once: the agent asks for its permit, switches, commits and reverts, and ingest tells so; `telemetry` is what it
reports afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from deploy.local.testing import BackingServices, Plane, until
from libs.common import rpc
from libs.common.bus import Bus, fact
from libs.common.clock import Clock, SystemClock
from libs.common.database import Database
from libs.common.errors import NotFound, Unavailable
from libs.common.names import new_id, parse
from libs.common.telemetry import use_traceparent
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc
from prunella_agent import configurations
from prunella_agent.archive import build_archive
from prunella_agent.releases import describe, generate_key, public_key, sign

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MAIN = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PROBE = """
import os, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/", timeout=2)
"""
SMOKE = """
import json, os
print(json.dumps({"test": "starts", "ok": True, "detail": ""}))
for number, _ in enumerate(json.load(open(os.environ["PRUNELLA_REPLAY"]))):
    print(json.dumps({"test": f"replay {number}", "ok": True, "detail": ""}))
"""
KINDS = {number: name.removeprefix("COMMAND_KIND_").lower() for name, number in agent_pb2.CommandKind.items()}
KEYS = [generate_key()[0] for _ in range(2)]


def archive(folder: Path, *, main: str = MAIN, probe: str = PROBE, smoke: str = SMOKE) -> bytes:
    """The artifact of a tiny real release."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"main.py": main, "probe.py": probe, "smoke.py": smoke}.items():
        (folder / name).write_text(text)
    return build_archive(folder)


class IngestStandIn(ingest_pb2_grpc.IngestServiceServicer):
    """Answers from tables, gives generations and fences, remembers every command."""

    def __init__(self) -> None:
        self.incidents: dict[str, tuple[str, int]] = {}
        self.plugins: dict[str, ingest_pb2.Plugin] = {}
        self.commands: list[agent_pb2.Command] = []
        self.withdrawn: list[str] = []
        self.requests: dict[str, agent_pb2.Command] = {}
        self.telemetry = ingest_pb2.GetTelemetryResponse()
        self.away = False
        self.fleet = 1000
        self.looks = 0
        self.carry_out: Callable[[agent_pb2.Command, str], Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def _here(self) -> None:
        if self.away:
            raise Unavailable("ingest is away", reason="AWAY")

    async def GetIncident(self, request: Any, _context: Any) -> ingest_pb2.GetIncidentResponse:  # noqa: N802
        """State and round as the test set them."""
        self._here()
        incident = parse("incidents", request.name)
        if incident not in self.incidents:
            raise NotFound("no such incident", reason="INCIDENT_NOT_FOUND")
        state, number = self.incidents[incident]
        found = ingest_pb2.Incident(name=request.name, state=state, round=number)
        return ingest_pb2.GetIncidentResponse(incident=found)

    async def GetPlugin(self, request: Any, _context: Any) -> ingest_pb2.GetPluginResponse:  # noqa: N802
        """The plugin as the test set it."""
        self._here()
        plugin = parse("plugins", request.name)
        if plugin not in self.plugins:
            raise NotFound("no such plugin", reason="PLUGIN_NOT_FOUND")
        return ingest_pb2.GetPluginResponse(plugin=self.plugins[plugin])

    async def GetFleet(self, _request: Any, _context: Any) -> ingest_pb2.GetFleetResponse:  # noqa: N802
        """As many as the test says."""
        self._here()
        return ingest_pb2.GetFleetResponse(plugins=self.fleet)

    async def GetTelemetry(self, request: Any, _context: Any) -> ingest_pb2.GetTelemetryResponse:  # noqa: N802
        """What the test says the plugin reported."""
        self._here()
        self.looks += 1
        told = ingest_pb2.GetTelemetryResponse()
        told.CopyFrom(self.telemetry)
        told.plugin.CopyFrom(self.plugins[request.plugin])
        return told

    async def IssueCommand(self, request: Any, _context: Any) -> ingest_pb2.IssueCommandResponse:  # noqa: N802
        """Writes a command down, once for each request."""
        self._here()
        known = self.requests.get(request.request_id)
        if known is None:
            generation = request.generation or self.plugins[request.plugin].generation + 1 + len(self.commands)
            known = agent_pb2.Command(
                id=new_id(),
                attempt=request.attempt,
                kind=request.kind,
                generation=generation,
                fence=len(self.commands) + 1,
                release=request.release,
                envelope=request.envelope,
                digest=request.digest,
                config=request.config,
            )
            self.requests[request.request_id] = known
            self.commands.append(known)
            if self.carry_out is not None:
                task = asyncio.create_task(self.carry_out(known, request.plugin))
                self._tasks.add(task)
        return ingest_pb2.IssueCommandResponse(command=known)

    async def WithdrawCommand(self, request: Any, _context: Any) -> ingest_pb2.WithdrawCommandResponse:  # noqa: N802
        """Remembers that it was withdrawn."""
        self.withdrawn.append(parse("commands", request.name))
        return ingest_pb2.WithdrawCommandResponse()


@dataclass
class PatcherAlone:
    """One patcher, and what stands around it."""

    backing: BackingServices
    environ: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    ingest: IngestStandIn = field(default_factory=IngestStandIn)
    # Empty when the patcher is a process of its own.
    names: Sequence[str] = ("patcher",)

    async def start(self, *, agent: bool = False) -> PatcherAlone:
        """Starts the patcher, a stand-in for ingest, and the bus of its siblings."""
        keys = ",".join(public_key(key).hex() for key in KEYS)
        environ = {"PATCHER_RELEASE_KEYS": keys, "PATCHER_DEAD_MAN_SECONDS": "12", **self.environ}
        self.plane = Plane(self.backing, clock=self.clock, environ=environ, names=self.names)
        await self.plane.start()
        add = ingest_pb2_grpc.add_IngestServiceServicer_to_server
        service = (add, self.ingest, "prunella.v1.IngestService")
        address, key = self.plane.addresses["ingest"], self.plane.key
        self._server = rpc.Server("ingest", address, [service], key=key, deep_check=_well)
        await self._server.start()
        self._databases = {name: Database(self.backing.url(name), clock=self.clock) for name in ("ingest", "decider")}
        self._buses = {
            n: Bus(self.backing.nats_url, database, n, self.clock) for n, database in self._databases.items()
        }
        for bus in self._buses.values():
            await bus.start()
        if agent:
            self.ingest.carry_out = self.obey
        return self

    async def stop(self) -> None:
        """Stops all of it."""
        await self.plane.stop()
        await self._server.stop(0)
        for bus in self._buses.values():
            await bus.stop()
        for database in self._databases.values():
            await database.close()

    @property
    def stub(self) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
        """The patcher as an operator calls it."""
        return patcher_pb2_grpc.PatcherServiceStub(self.plane.channel("patcher"))  # type: ignore[return-value]

    @property
    def for_ingest(self) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
        """The patcher as ingest calls it."""
        return patcher_pb2_grpc.PatcherServiceStub(self.plane.channel("patcher", "ingest"))  # type: ignore[return-value]

    @property
    def ctx(self) -> Any:
        """What the patcher's doors hold."""
        return self.plane.services["patcher"].ctx

    async def publish(self, artifact: bytes, version: str = "1.2.3", package: str = "checkout") -> patcher_pb2.Release:
        """Signs with both keys and publishes."""
        envelope = sign(describe(artifact, package=package, version=version), KEYS)
        request = patcher_pb2.PublishReleaseRequest(request_id=new_id(), envelope=envelope, artifact=artifact)
        return (await self.stub.PublishRelease(request, timeout=10)).release

    async def configure(self, document: bytes, version: str, **named: str) -> patcher_pb2.Configuration:
        """Signs a configuration with both keys and publishes it."""
        given = configurations.describe(document, **{"package": "checkout", "version": version} | named)
        envelope = configurations.sign(given, KEYS)
        request = patcher_pb2.PublishConfigurationRequest(request_id=new_id(), envelope=envelope, document=document)
        return (await self.stub.PublishConfiguration(request, timeout=10)).configuration

    async def tell(
        self, message: Message, *, source: str, incident: str = "", plugin: str = "p1", merchant: str = "m1"
    ) -> events_pb2.Event:
        """Records a fact of a sibling, in a trace, and publishes it."""
        event = fact(source, message, reason="a test says so", plugin=plugin, merchant=merchant, incident=incident)

        async def work(tx: Any) -> None:
            tx.record(event)

        with use_traceparent(TRACE):
            await self._databases[source].transaction(work)
        return event

    async def decide(self, **changes: Any) -> tuple[str, events_pb2.Event]:
        """A decision as in the worked example; fields of the fact may be changed. Returns incident and fact."""
        incident = changes.pop("incident", None) or new_id()
        plugin = changes.pop("plugin", "p1")
        self.ingest.incidents.setdefault(incident, ("open", 1))
        self.ingest.plugins.setdefault(plugin, plugin_of(plugin))
        told = events_pb2.DecisionMade(
            decision=new_id(),
            round=1,
            action=events_pb2.ACTION_PATCH,
            release="1.2.3",
            confidence=0.87,
            type="webhook_fail_rate",
            severity=events_pb2.SEVERITY_MEDIUM,
            package="checkout",
            from_release="1.2.0",
            evidence=events_pb2.Evidence(failing_inputs=['{"card": "4111"}']),
        )
        for name, value in changes.items():
            if isinstance(value, Message):
                getattr(told, name).CopyFrom(value)
            else:
                setattr(told, name, value)
        return incident, await self.tell(told, source="decider", incident=incident, plugin=plugin)

    async def finish(
        self, command: agent_pb2.Command, outcome: str, plugin: str = "p1", **more: Any
    ) -> events_pb2.Event:
        """What ingest tells when the agent has spoken."""
        told = events_pb2.CommandFinished(
            command=command.id,
            attempt=command.attempt,
            kind=KINDS[command.kind],
            generation=command.generation,
            fence=command.fence,
            outcome=outcome,
            **more,
        )
        return await self.tell(told, source="ingest", plugin=plugin)

    async def release_switch(
        self, scope: str, reason: str = "over", request_id: str = ""
    ) -> patcher_pb2.ReleaseKillSwitchResponse:
        """Releases the engagement of a kill switch that stands now."""
        listed = await self.stub.ListKillSwitches(patcher_pb2.ListKillSwitchesRequest(), timeout=10)
        epoch = next((one.epoch for one in listed.kill_switches if one.scope == scope), 0)
        request = patcher_pb2.ReleaseKillSwitchRequest(
            scope=scope, reason=reason, request_id=request_id or new_id(), epoch=epoch
        )
        return await self.stub.ReleaseKillSwitch(request, timeout=10)

    async def ask(self, command: agent_pb2.Command, plugin: str = "p1") -> patcher_pb2.AuthorizeApplyResponse:
        """BeginApply, as ingest passes it on."""
        request = patcher_pb2.AuthorizeApplyRequest(
            plugin=plugin,
            command=command.id,
            attempt=command.attempt,
            generation=command.generation,
            fence=command.fence,
            request_id=new_id(),
        )
        return await self.for_ingest.AuthorizeApply(request, timeout=20)

    async def _ask_until_answered(self, command: agent_pb2.Command, plugin: str) -> patcher_pb2.AuthorizeApplyResponse:
        """A command is delivered until there is a receipt: while the patcher is away, it is asked again."""

        async def answer() -> patcher_pb2.AuthorizeApplyResponse | None:
            try:
                return await self.ask(command, plugin)
            except Unavailable:
                return None

        return await until(answer, 60, what=f"{plugin} is answered")  # type: ignore[no-any-return]

    async def obey(self, command: agent_pb2.Command, plugin: str) -> None:
        """A good agent."""
        kind = KINDS[command.kind]
        if kind in {"update", "restart", "config_update"}:
            permit = await self._ask_until_answered(command, plugin)
            if not permit.granted:
                await self.finish(command, "refused", plugin, detail=permit.gate)
                return
            self.run(plugin, command)
        words = {"commit": "committed", "rollback": "reverted", "health_check": "done"}
        await self.finish(command, words.get(kind, "applied"), plugin)

    def run(self, plugin: str, command: agent_pb2.Command) -> None:
        """The plugin runs the generation of a command from now on, and says so."""
        known = self.ingest.plugins[plugin]
        known.generation, known.release = command.generation, command.release
        if command.kind == agent_pb2.COMMAND_KIND_CONFIG_UPDATE:
            known.config_digest = command.digest
        else:
            known.digest = command.digest
        known.last_beat_time.FromDatetime(self.clock.now())

    def report(self, *, beats: int = 6, attempts: int = 60, failures: int = 0, errors: int = 0) -> None:
        """What the new generation shows; before the switch 60 % failed."""
        told = self.ingest.telemetry
        told.before.CopyFrom(ingest_pb2.TelemetrySums(beats=20, webhook_attempts=100, webhook_failures=60, errors=60))
        told.before.duration.FromSeconds(20)
        told.after.CopyFrom(
            ingest_pb2.TelemetrySums(beats=beats, webhook_attempts=attempts, webhook_failures=failures, errors=errors)
        )
        told.after.duration.FromSeconds(beats)

    async def attempt(self, state: str, timeout: float = 15.0, **filters: str) -> patcher_pb2.Attempt:
        """Waits until the newest attempt is in a state, and returns it with its history."""

        async def look() -> patcher_pb2.Attempt | None:
            page = await self.stub.ListAttempts(patcher_pb2.ListAttemptsRequest(page_size=1, **filters), timeout=5)
            return page.attempts[0] if page.attempts and page.attempts[0].state == state else None

        found = await until(look, timeout, what=f"an attempt is {state}")
        asked = patcher_pb2.GetAttemptRequest(name=found.name)
        return (await self.stub.GetAttempt(asked, timeout=5)).attempt

    async def command(self, kind: str, number: int = 1) -> agent_pb2.Command:
        """Waits until a command of a kind was issued for the `number`-th time."""

        def look() -> agent_pb2.Command | None:
            found = [command for command in self.ingest.commands if KINDS[command.kind] == kind]
            return found[number - 1] if len(found) >= number else None

        return await until(look, what=f"{kind} is issued")  # type: ignore[no-any-return]

    async def heard(self, *events: events_pb2.Event) -> None:
        """Waits until the patcher is done with facts."""

        async def received() -> bool:
            rows = await self.plane.sql("SELECT event_id FROM bus.inbox WHERE consumer = 'patcher'")
            return {event.id for event in events} <= {str(row.event_id) for row in rows}

        await until(received, what="the facts are in the patcher's inbox")


def plugin_of(plugin: str, **changes: Any) -> ingest_pb2.Plugin:
    """A healthy plugin on 1.2.0."""
    found = ingest_pb2.Plugin(
        name=f"plugins/{plugin}",
        package="checkout",
        merchant="m1",
        release="1.2.0",
        generation=3,
        digest="0" * 64,
        health=agent_pb2.HEALTH_HEALTHY,
        state="active",
        connected=True,
        capabilities=["update", "rollback", "restart", "health_check", "commit", "config_update"],
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


async def _well() -> None:
    return
