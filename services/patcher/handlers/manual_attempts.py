"""Manual attempts: an operator wants a remedy for a plugin, with or without an incident.

Rule: who asks chooses the remedy, and nothing else: kill switches, freezes, budgets, staging, approvals of others and
the verdict are the same as for a decision. An incident brings its severity along; without one there is none to cap.
"""

# ruff: noqa: N802 - the proto names the methods

from dataclasses import dataclass
from typing import Any

from libs.common import access, names
from libs.common.database import Transaction
from libs.common.errors import Invalid, NotFound, Refused
from libs.common.telemetry import current_traceparent, new_traceparent
from prunella.v1 import ingest_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import Attempt
from services.patcher.context import ServiceContext
from services.patcher.handlers.policy import required_reason
from services.patcher.operations.create_attempt import create, draft, resolve, unknown_target
from services.patcher.operations.ingest_queries import count_plugins, get_incident, get_plugin
from services.patcher.policy import Action, Severity
from services.patcher.store import attempts, fleets

OVER = frozenset({"mitigated", "closed"})


@dataclass(frozen=True)
class ManualRequest:
    """What a person wants, where."""

    author: str
    action: Action
    target: str
    plugin_id: str
    plugin: ingest_pb2.Plugin
    incident: ingest_pb2.Incident | None


class ManualAttemptHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The part of PatcherService for remedies that people choose."""

    ctx: ServiceContext

    async def CreateAttempt(
        self, request: patcher_pb2.CreateAttemptRequest, context: Any
    ) -> patcher_pb2.CreateAttemptResponse:
        """Begins an attempt. Raises Invalid, NotFound, Refused; a gate's no is the attempt's state and reason."""
        author, reason = access.caller(context), required_reason(request.reason)
        earlier = await self.ctx.requests.earlier(request, patcher_pb2.CreateAttemptResponse)
        if earlier is not None:
            return earlier
        wanted = await self._wanted(request, author)
        fleet = await count_plugins(self.ctx, wanted.plugin.package)
        trace = current_traceparent() or new_traceparent()

        async def work(tx: Transaction) -> patcher_pb2.CreateAttemptResponse:
            if fleet is not None:
                await fleets.put(tx, wanted.plugin.package, fleet)
            await attempts.occupying(tx, wanted.plugin_id, "")
            made = await _draft(tx, self.ctx, wanted, trace)
            created = await create(tx, self.ctx, made, wanted.plugin, None, author=author, reason=reason)
            return patcher_pb2.CreateAttemptResponse(attempt=wire.attempt_of(created))

        return await self.ctx.requests.once(request, patcher_pb2.CreateAttemptResponse, work)

    async def _wanted(self, request: patcher_pb2.CreateAttemptRequest, author: str) -> ManualRequest:
        action = wire.ACTIVE.get(request.action)
        if action is None:
            raise Invalid(
                "action must be ACTION_PATCH, ACTION_ROLLBACK, ACTION_RESTART or ACTION_CONFIG_FIX",
                reason="ACTION_INVALID",
                field="action",
            )
        if request.target and (action is Action.RESTART or not names.is_id(request.target)):
            raise Invalid("target must be a version, and a restart has none", reason="TARGET_INVALID", field="target")
        if action is Action.PATCH and not request.target:
            raise Invalid("a patch needs the release it brings", reason="TARGET_MISSING", field="target")
        incident = await self._incident(request.incident) if request.incident else None
        plugin_id = names.id_of(request.plugin) or (names.id_of(incident.plugin) if incident else "")
        if not plugin_id:
            raise Invalid("name a plugin or an incident", reason="PLUGIN_MISSING", field="plugin")
        if incident is not None and names.id_of(incident.plugin) != plugin_id:
            raise Invalid(
                f"the incident is about plugin {names.id_of(incident.plugin)}", reason="PLUGIN_DIFFERS", field="plugin"
            )
        plugin = await get_plugin(self.ctx, plugin_id)
        if plugin is None:
            raise NotFound(f"there is no plugin {plugin_id}", reason="PLUGIN_UNKNOWN", field="plugin")
        if plugin.state != "active":
            raise Refused(f"the plugin is {plugin.state}", reason="PLUGIN_INACTIVE", field="plugin", plugin=plugin_id)
        return ManualRequest(author, action, request.target, plugin_id, plugin, incident)

    async def _incident(self, name: str) -> ingest_pb2.Incident:
        incident = names.parse("incidents", name if "/" in name else names.incident(name), field="incident")
        found = await get_incident(self.ctx, incident)
        if found.state in OVER:
            raise Refused(
                f"incident {incident} is {found.state}; leave it out to change the plugin all the same",
                reason="INCIDENT_OVER",
                field="incident",
                state=found.state,
            )
        return found


async def _draft(tx: Transaction, ctx: ServiceContext, wanted: ManualRequest, trace: str) -> Attempt:
    """The attempt that is wanted. Raises NotFound for what is not published."""
    plugin, action, incident = wanted.plugin, wanted.action, wanted.incident
    target = await resolve(tx, wanted.plugin_id, plugin, action, wanted.target)
    if not target.digest and (target.release or action is Action.CONFIG_FIX) and action is not Action.RESTART:
        config = action is Action.CONFIG_FIX
        raise unknown_target(plugin.package, wanted.target, config=config, where=" for this plugin")
    return await draft(
        tx,
        ctx,
        wanted.plugin_id,
        plugin,
        target,
        id=names.new_id(tx.now),
        incident=names.id_of(incident.name) if incident else "",
        decision="",
        action=action,
        severity=wire.severity(incident.severity) if incident else Severity.LOW,
        symptom=incident.type if incident else "",
        round=incident.round if incident else 1,
        # An operator chose, so there is nothing to be unsure of.
        confidence=1.0,
        traceparent=trace,
        author=wanted.author,
    )
