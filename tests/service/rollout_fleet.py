"""A patcher with a fleet around it: every plugin's agent obeys at once, and a build may be bad for some of them.

`bad` names the releases that break who runs them, but for the first `luck` plugins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import BackingServices, until
from libs.common.names import new_id
from prunella.v1 import agent_pb2, ingest_pb2, patcher_pb2
from tests.service.patcher_alone import KINDS, IngestStandIn, PatcherAlone, archive, plugin_of


class FleetStandIn(IngestStandIn):
    """Lists plugins by package, and tells what each one's release shows."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: set[str] = set()
        self.luck = 0
        self.lucky: set[str] = set()

    async def ListPlugins(self, request: Any, _context: Any) -> ingest_pb2.ListPluginsResponse:  # noqa: N802
        """Every plugin of a package, in pages of one hundred."""
        self._here()
        found = [plugin for plugin in self.plugins.values() if plugin.package == request.package]
        start = int(request.page_token or 0)
        more = str(start + 100) if len(found) > start + 100 else ""
        return ingest_pb2.ListPluginsResponse(plugins=found[start : start + 100], next_page_token=more)

    async def GetTelemetry(self, request: Any, _context: Any) -> ingest_pb2.GetTelemetryResponse:  # noqa: N802
        """Good figures, or webhooks that fail when the release is bad."""
        self._here()
        plugin = self.plugins[request.plugin]
        if len(self.lucky) < self.luck and plugin.release in self.bad:
            self.lucky.add(request.plugin)
        failures = 40 if plugin.release in self.bad and request.plugin not in self.lucky else 0
        return ingest_pb2.GetTelemetryResponse(
            before=_sums(20, 100, 0), after=_sums(6, 60, failures), control=_sums(6, 60, 0), plugin=plugin
        )


def _sums(beats: int, attempts: int, failures: int) -> ingest_pb2.TelemetrySums:
    return ingest_pb2.TelemetrySums(
        beats=beats, webhook_attempts=attempts, webhook_failures=failures, duration=Duration(seconds=beats)
    )


class Fleet(PatcherAlone):
    """One patcher and so many plugins p1, p2, … of the package checkout on 1.2.0."""

    ingest: FleetStandIn

    @classmethod
    async def of(cls, backing: BackingServices, folder: Path, size: int, **environ: str) -> Fleet:
        """A started fleet with release 1.2.3 published."""
        made = cls(backing, environ=environ, ingest=FleetStandIn())
        for number in range(1, size + 1):
            name = f"p{number}"
            made.ingest.plugins[name] = plugin_of(name, label=f"shop-{number}", merchant=f"m{number}")
        made.ingest.fleet = 1000
        await made.start(agent=True)
        await made.publish(archive(folder / "release"))
        return made

    async def obey(self, command: agent_pb2.Command, plugin: str) -> None:
        """A good agent, which also knows the way back."""
        if KINDS[command.kind] == "rollback":
            known = self.ingest.plugins[plugin]
            known.release, known.generation = "1.2.0", 3
        await super().obey(command, plugin)

    async def create(self, **fields: Any) -> patcher_pb2.Rollout:
        """A rollout of 1.2.3 to everybody; fields of the request and, by name, of its settings may be given."""
        settings = patcher_pb2.RolloutSettings(
            waves=fields.pop("waves", ["2", "50%", "100%"]),
            soak=Duration(seconds=fields.pop("soak_seconds", 0)),
            exposure=fields.pop("exposure", 1),
            **{name: fields.pop(name) for name in ("budget", "canaries", "alpha") if name in fields},
        )
        request = patcher_pb2.CreateRolloutRequest(
            **{"package": "checkout", "target": "1.2.3", "reason": "a test wants it", "request_id": new_id()} | fields,
            settings=settings,
        )
        return (await self.stub.CreateRollout(request, timeout=10)).rollout

    async def rollout(self, name: str) -> patcher_pb2.Rollout:
        """The rollout as it stands."""
        return (await self.stub.GetRollout(patcher_pb2.GetRolloutRequest(name=name), timeout=5)).rollout

    async def reaches(self, name: str, *states: str, timeout: float = 40.0) -> patcher_pb2.Rollout:
        """Waits until the rollout is in one of these states."""

        async def look() -> patcher_pb2.Rollout | None:
            found = await self.rollout(name)
            return found if found.state in states else None

        return await until(look, timeout, what=f"the rollout is {' or '.join(states)}")  # type: ignore[no-any-return]

    async def members(self, name: str, *states: str) -> dict[str, patcher_pb2.RolloutMember]:
        """Members by plugin."""
        request = patcher_pb2.GetRolloutRequest(name=name, member_states=states or ["all"], page_size=500)
        return {member.plugin: member for member in (await self.stub.GetRollout(request, timeout=5)).members}

    async def told(self) -> list[str]:
        """The facts of rollouts in order, without their prefix."""
        rows = await self.plane.sql("SELECT fact FROM bus.facts WHERE fact LIKE 'rollout_%' ORDER BY time, id")
        return [row.fact.removeprefix("rollout_") for row in rows]
