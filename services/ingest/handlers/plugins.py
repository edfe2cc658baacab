"""Plugins: everybody may read them, operators enrol and retire them."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import known
from libs.common.timestamps import moment
from prunella.v1 import agent_pb2
from prunella.v1 import ingest_pb2 as pb
from services.ingest import telemetry
from services.ingest.context import ServiceContext
from services.ingest.gateway import departure, enroll
from services.ingest.store import generations, incidents, plugin_state, plugins
from services.ingest.wire import plugins as wire

Context = grpc.aio.ServicerContext[Any, Any]

FRESH = 2.5  # beat intervals without a beat after which a session counts as gone
MOST_PEERS = 200


class PluginHandlers:
    """The part of `IngestService` about plugins."""

    ctx: ServiceContext

    async def CreateEnrollmentToken(
        self, request: pb.CreateEnrollmentTokenRequest, context: Context
    ) -> pb.CreateEnrollmentTokenResponse:
        """A one-time token."""
        return await enroll.create_token(self.ctx, request, access.caller(context))

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
                away=row.away,
            )
            for row in rows
        ]
        return pb.GetFleetResponse(plugins=count, groups=groups)

    async def RetirePlugin(self, request: pb.RetirePluginRequest, context: Context) -> pb.RetirePluginResponse:
        """Ends a plugin's life; ending it again changes nothing."""
        reason, actor = request.reason or "retired by a person", access.caller(context)

        async def work(tx: Transaction) -> pb.RetirePluginResponse:
            plugin = str((await self._view(tx, request.name)).id)
            identities = await plugins.identities(tx, [plugin])
            await departure.retire_in(tx, identities[plugin], actor, reason)
            return pb.RetirePluginResponse(plugin=self._resource(await self._view(tx, names.plugin(plugin))))

        answer = await self.ctx.requests.once(request, pb.RetirePluginResponse, work)
        departure.forget(self.ctx, names.id_of(answer.plugin.name), "the plugin is retired")
        return answer

    async def ReleaseFromQuarantine(
        self, request: pb.ReleaseFromQuarantineRequest, context: Context
    ) -> pb.ReleaseFromQuarantineResponse:
        """Lets a quarantined plugin in again; one that is active stays as it is. Raises Refused for a retired one."""
        reason, actor = request.reason or "let in again by a person", access.caller(context)

        async def work(tx: Transaction) -> pb.ReleaseFromQuarantineResponse:
            plugin = str((await self._view(tx, request.name)).id)
            identities = await plugins.identities(tx, [plugin])
            await departure.release_in(tx, identities[plugin], actor, reason)
            return pb.ReleaseFromQuarantineResponse(plugin=self._resource(await self._view(tx, names.plugin(plugin))))

        answer = await self.ctx.requests.once(request, pb.ReleaseFromQuarantineResponse, work)
        departure.look_again(self.ctx, names.id_of(answer.plugin.name))
        return answer

    async def GetTelemetry(self, request: pb.GetTelemetryRequest, _context: Context) -> pb.GetTelemetryResponse:
        """Before and after a switch, and the plugins of the package that were not switched."""
        name = request.plugin if request.plugin.startswith("plugins/") else names.plugin(request.plugin)
        switch_time = moment(request.switch_time, "switch_time")
        async with self.ctx.database.reading() as tx:
            row = await self._view(tx, name)
            plugin, switch = str(row.id), switch_time.timestamp()
            state = known(await plugin_state.get(tx, plugin), "plugin", plugin)
            seed = f"{plugin} {request.generation}"
            peers = await plugin_state.draw_peers(tx, plugin, row.package, switch, MOST_PEERS, seed)
            taken_back = await generations.taken_back(tx, plugin)
            findings = await incidents.types_since(tx, plugin, request.generation, switch_time)
        found = telemetry.compare(state, peers, request.generation, switch, taken_back)
        return pb.GetTelemetryResponse(
            before=wire.sums(found.before, 1),
            after=wire.sums(found.after, 1, more_beats=found.first_beats),
            control=wire.sums(found.control, found.peers),
            plugin=self._resource(row),
            findings=findings,
            levels=[wire.level(*one) for one in telemetry.levels(state, row.numbers)],
        )

    async def _view(self, tx: Transaction, name: str) -> Any:
        wanted = names.parse("plugins", name)
        which = {"plugin": wanted} if names.is_uuid(wanted) else {"label": wanted}
        return known(await plugins.view(tx, **which), "plugin", wanted)

    def _resource(self, row: Any) -> pb.Plugin:
        settings = self.ctx.settings
        return wire.resource(row, self.ctx.clock.now(), max(FRESH * settings.beat, 5.0))
