"""Plugins: everybody may read them, operators enrol and retire them."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import known
from prunella.v1 import agent_pb2
from prunella.v1 import ingest_pb2 as pb
from services.ingest import windows
from services.ingest.context import ServiceContext
from services.ingest.gateway import departure, enroll
from services.ingest.plugin_state import PluginState
from services.ingest.store import plugin_state, plugins
from services.ingest.windows import Window
from services.ingest.wire import plugins as wire
from services.ingest.wire.timestamps import stamp, to_datetime

Context = grpc.aio.ServicerContext[Any, Any]

FRESH = 2.5  # beat intervals without a beat after which a session counts as gone
MOST_PEERS = 200
# What came earlier says little about how it was just before the switch (seconds).
BEFORE = 600.0


class PluginHandlers:
    """The part of `IngestService` about plugins."""

    ctx: ServiceContext

    async def CreateEnrollmentToken(
        self, request: pb.CreateEnrollmentTokenRequest, _context: Context
    ) -> pb.CreateEnrollmentTokenResponse:
        """A one-time token."""
        token, expires = await enroll.create_token(self.ctx, request)
        return pb.CreateEnrollmentTokenResponse(token=token, expire_time=stamp(expires))

    async def GetPlugin(self, request: pb.GetPluginRequest, _context: Context) -> pb.GetPluginResponse:
        """One plugin, by id or by label."""
        async with self.ctx.database.reading() as tx:
            return pb.GetPluginResponse(plugin=self._resource(await self._view(tx, request.name)))

    async def ListPlugins(self, request: pb.ListPluginsRequest, _context: Context) -> pb.ListPluginsResponse:
        """Plugins, newest first."""
        filters = {
            "package": request.package,
            "merchant": request.merchant,
            "release": request.release,
            "health": int(request.health),
        }
        page = paging.page(request, filters, UUID)
        async with self.ctx.database.reading() as tx:
            rows = await plugins.page(tx, filters, page)
        found, more = page.cut(rows, lambda row: [row.id])
        return pb.ListPluginsResponse(plugins=[self._resource(row) for row in found], next_page_token=more)

    async def GetFleet(self, request: pb.GetFleetRequest, _context: Context) -> pb.GetFleetResponse:
        """How many active plugins a package has; with a breakdown also what they run and how they are."""
        async with self.ctx.database.reading() as tx:
            if not request.breakdown:
                return pb.GetFleetResponse(plugins=await plugins.size(tx, request.package))
            count, rows = await plugins.groups(tx, request.package, request.merchant)
        groups = [
            pb.FleetGroup(
                package=row.package,
                release=row.release,
                health=agent_pb2.Health.ValueType(row.health),
                plugins=row.plugins,
                connected=row.connected,
            )
            for row in rows
        ]
        return pb.GetFleetResponse(plugins=count, groups=groups)

    async def RetirePlugin(self, request: pb.RetirePluginRequest, context: Context) -> pb.RetirePluginResponse:
        """Ends a plugin's life; ending it again changes nothing."""
        async with self.ctx.database.reading() as tx:
            row = await self._view(tx, request.name)
            identities = await plugins.identities(tx, [str(row.id)])
        reason = request.reason or "retired by a person"
        await departure.retire(self.ctx, identities[str(row.id)], access.caller(context), reason)
        async with self.ctx.database.reading() as tx:
            return pb.RetirePluginResponse(plugin=self._resource(await self._view(tx, names.plugin(str(row.id)))))

    async def GetTelemetry(self, request: pb.GetTelemetryRequest, _context: Context) -> pb.GetTelemetryResponse:
        """Before and after a switch, and the plugins of the package that were not switched."""
        name = request.plugin if request.plugin.startswith("plugins/") else names.plugin(request.plugin)
        switch = to_datetime(request.switch_time, "switch_time").timestamp()
        async with self.ctx.database.reading() as tx:
            row = await self._view(tx, name)
            state = await plugin_state.get(tx, str(row.id))
            peers = await plugin_state.peers(tx, str(row.id), row.package, switch, MOST_PEERS)
        assert state is not None
        return compare(state, peers, request.generation, switch, self._resource(row))

    async def _view(self, tx: Transaction, name: str) -> Any:
        wanted = names.parse("plugins", name)
        which = {"plugin": wanted} if names.is_uuid(wanted) else {"label": wanted}
        return known(await plugins.view(tx, **which), "plugin", wanted)

    def _resource(self, row: Any) -> pb.Plugin:
        settings = self.ctx.settings
        return wire.resource(row, self.ctx.clock.now(), max(FRESH * settings.beat, 5.0))


def compare(
    state: PluginState, peers: list[PluginState], generation: int, switch: float, plugin: pb.Plugin
) -> pb.GetTelemetryResponse:
    """The sums a verdict needs. The first beat of a generation ends a window of the one before, but is a beat of it."""
    own = windows.read(state.windows)
    after = _last_run(own, generation)
    before = [w for w in own if w.generation != generation and w.end <= switch + 1.0 and w.end > switch - BEFORE]
    sums = wire.sums(after, 1)
    if state.generation == generation:
        sums.beats += 1
    control = [windows.since(windows.read(peer.windows), switch) for peer in peers]
    counting = [counted for counted in control if counted]
    return pb.GetTelemetryResponse(
        before=wire.sums(before, 1),
        after=sums,
        control=wire.sums([window for counted in counting for window in counted], len(counting)),
        plugin=plugin,
    )


def _last_run(own: list[Window], generation: int) -> list[Window]:
    """The newest windows of a generation without another between them: it may have run before, and come back."""
    found: list[Window] = []
    for window in reversed(own):
        if window.generation == generation:
            found.append(window)
        elif found:
            break
    return found[::-1]
