"""The decider alone on real PostgreSQL and NATS: the test speaks for its siblings.

`incidents` is what ingest would answer; `tell` records a fact as its owner would and publishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from deploy.local.testing import BackingServices, Plane
from libs.common import rpc
from libs.common.bus import Bus, fact
from libs.common.clock import Clock, SystemClock
from libs.common.database import Database
from libs.common.errors import NotFound, Unavailable
from libs.common.names import new_id, parse
from libs.common.telemetry import use_traceparent
from prunella.v1 import decider_pb2_grpc, events_pb2, ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class IngestStandIn(ingest_pb2_grpc.IngestServiceServicer):
    """Answers GetIncident from a table."""

    def __init__(self) -> None:
        self.incidents: dict[str, tuple[str, int]] = {}
        self.away = False
        self.questions = 0

    async def GetIncident(  # noqa: N802 - the proto names it
        self, request: ingest_pb2.GetIncidentRequest, _context: Any
    ) -> ingest_pb2.GetIncidentResponse:
        """State and round as the test set them."""
        self.questions += 1
        if self.away:
            raise Unavailable("ingest is away", reason="AWAY")
        incident = parse("incidents", request.name)
        if incident not in self.incidents:
            raise NotFound("no such incident", reason="INCIDENT_NOT_FOUND")
        state, number = self.incidents[incident]
        found = ingest_pb2.Incident(name=request.name, state=state, round=number)
        return ingest_pb2.GetIncidentResponse(incident=found)


class PatcherStandIn(patcher_pb2_grpc.PatcherServiceServicer):
    """Knows the policy's version, and whether outcomes may teach."""

    def __init__(self) -> None:
        self.learning = True

    async def GetPolicy(  # noqa: N802 - the proto names it
        self, _request: patcher_pb2.GetPolicyRequest, _context: Any
    ) -> patcher_pb2.GetPolicyResponse:
        """Always the seventh."""
        return patcher_pb2.GetPolicyResponse(policy=patcher_pb2.Policy(version=7, learning_enabled=self.learning))


@dataclass
class DeciderAlone:
    """One decider, and what stands around it."""

    backing: BackingServices
    environ: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    ingest: IngestStandIn = field(default_factory=IngestStandIn)
    patcher: PatcherStandIn = field(default_factory=PatcherStandIn)
    _servers: list[rpc.Server] = field(default_factory=list)
    _databases: dict[str, Database] = field(default_factory=dict)
    _buses: dict[str, Bus] = field(default_factory=dict)

    async def start(self) -> DeciderAlone:
        """Starts the decider, a stand-in for ingest, and the bus of its siblings."""
        self.plane = Plane(self.backing, clock=self.clock, environ=self.environ, names=("decider",))
        await self.plane.start()
        siblings = {
            "ingest": (ingest_pb2_grpc.add_IngestServiceServicer_to_server, self.ingest, "prunella.v1.IngestService"),
            "patcher": (
                patcher_pb2_grpc.add_PatcherServiceServicer_to_server,
                self.patcher,
                "prunella.v1.PatcherService",
            ),
        }
        self._servers = [
            rpc.Server(name, self.plane.addresses[name], [servicer], key=self.plane.key, deep_check=_well)
            for name, servicer in siblings.items()
        ]
        for server in self._servers:
            await server.start()
        self._databases = {name: Database(self.backing.url(name), clock=self.clock) for name in ("ingest", "patcher")}
        self._buses = {
            name: Bus(self.backing.nats_url, database, name, self.clock) for name, database in self._databases.items()
        }
        for bus in self._buses.values():
            await bus.start()
        # A busy machine may take longer to connect than a decision waits for the policy's version.
        await self.ctx.policy.refresh()
        return self

    async def stop(self) -> None:
        """Stops all of it."""
        await self.plane.stop()
        for server in self._servers:
            await server.stop(0)
        for bus in self._buses.values():
            await bus.stop()
        for database in self._databases.values():
            await database.close()

    @property
    def stub(self) -> decider_pb2_grpc.DeciderServiceAsyncStub:
        """The decider as an operator calls it."""
        return decider_pb2_grpc.DeciderServiceStub(self.plane.channel("decider"))  # type: ignore[return-value]

    @property
    def ctx(self) -> Any:
        """What the decider's doors hold."""
        return self.plane.services["decider"].ctx

    async def record(
        self, message: Message, *, source: str = "ingest", incident: str = "", plugin: str = "p1", merchant: str = "m1"
    ) -> events_pb2.Event:
        """Records a fact of a sibling, in a trace, and publishes it."""
        event = fact(source, message, reason="a test says so", plugin=plugin, merchant=merchant, incident=incident)

        async def work(tx: Any) -> None:
            tx.record(event)

        with use_traceparent(TRACE):
            await self._databases[source].transaction(work)
        return event

    async def open_incident(self, **changes: Any) -> tuple[str, events_pb2.Event]:
        """An incident as in the worked example, open in its first round; fields of the fact may be changed."""
        incident = changes.pop("incident", None) or new_id()
        plugin = changes.pop("plugin", "p1")
        self.ingest.incidents[incident] = (changes.pop("state", "open"), changes.pop("standing_round", 1))
        told = events_pb2.IncidentOpened(
            type="webhook_fail_rate",
            severity=events_pb2.SEVERITY_MEDIUM,
            round=1,
            package="checkout",
            release="1.2.0",
            generation=3,
            evidence=events_pb2.Evidence(
                summary="webhook_fail_rate 0.60 > 0.30 over 25 attempts",
                figures={"webhook_fail_rate": 0.6},
                failing_inputs=['{"card": "4111"}'],
                environment={"cms": "woocommerce"},
                config_digest="c0",
            ),
        )
        told.MergeFrom(events_pb2.IncidentOpened(**changes))
        return incident, await self.record(told, incident=incident, plugin=plugin)


async def _well() -> None:
    return
