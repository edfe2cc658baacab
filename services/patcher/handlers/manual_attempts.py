"""Attempts by hand: a person wants a remedy for a plugin, with or without an incident.

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
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import Attempt
from services.patcher.context import ServiceContext
from services.patcher.handlers.policy import said
from services.patcher.operations.apply_change import bounds
from services.patcher.operations.create_attempt import OWN, begin, configuration, target
from services.patcher.operations.ingest_queries import fleet_of, incident_of, plugin_of
from services.patcher.policy import Action, Severity
from services.patcher.store import attempts, fleets, releases
from services.patcher.store import policy as policies

OVER = frozenset({"mitigated", "closed"})
LONGEST_REQUEST = 128


@dataclass(frozen=True)
class Wanted:
    """What a person wants, where."""

    author: str
    request: str
    action: Action
    target: str
    plugin_id: str
    plugin: ingest_pb2.Plugin
    incident: ingest_pb2.Incident | None


class ByHandHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The part of PatcherService for remedies that people choose."""

    ctx: ServiceContext

    async def CreateAttempt(
        self, request: patcher_pb2.CreateAttemptRequest, context: Any
    ) -> patcher_pb2.CreateAttemptResponse:
        """Begins an attempt. Raises Invalid, NotFound, Refused; a gate's no is the attempt's state and reason."""
        author, reason, asked = access.caller(context), said(request.reason), _request(request.request_id)
        async with self.ctx.database.reading() as tx:
            known = await attempts.of_request(tx, author, asked)
        if known is not None:
            return patcher_pb2.CreateAttemptResponse(attempt=wire.attempt_of(_same(known, request)))
        wanted = await self._wanted(request, author)
        fleet = await fleet_of(self.ctx, wanted.plugin.package)
        trace = current_traceparent() or new_traceparent()

        async def work(tx: Transaction) -> Attempt:
            if fleet is not None:
                await fleets.put(tx, wanted.plugin.package, fleet)
            # Under the plugin's lock a repeat of this request finds what the first one made.
            await attempts.busy(tx, wanted.plugin_id, "")
            earlier = await attempts.of_request(tx, author, asked)
            if earlier is not None:
                return _same(earlier, request)
            made = await _attempt(tx, self.ctx, wanted, trace)
            return await begin(tx, self.ctx, made, wanted.plugin, None, author=author, reason=reason)

        return patcher_pb2.CreateAttemptResponse(attempt=wire.attempt_of(await self.ctx.database.transaction(work)))

    async def _wanted(self, request: patcher_pb2.CreateAttemptRequest, author: str) -> Wanted:
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
        plugin_id = _bare(request.plugin) or (_bare(incident.plugin) if incident else "")
        if not plugin_id:
            raise Invalid("name a plugin or an incident", reason="PLUGIN_MISSING", field="plugin")
        if incident is not None and _bare(incident.plugin) != plugin_id:
            raise Invalid(
                f"the incident is about plugin {_bare(incident.plugin)}", reason="PLUGIN_DIFFERS", field="plugin"
            )
        plugin = await plugin_of(self.ctx, plugin_id)
        if plugin is None:
            raise NotFound(f"there is no plugin {plugin_id}", reason="PLUGIN_UNKNOWN", field="plugin")
        if plugin.state != "active":
            raise Refused(f"the plugin is {plugin.state}", reason="PLUGIN_INACTIVE", field="plugin", plugin=plugin_id)
        return Wanted(author, request.request_id, action, request.target, plugin_id, plugin, incident)

    async def _incident(self, name: str) -> ingest_pb2.Incident:
        incident = names.parse("incidents", name if "/" in name else names.incident(name), field="incident")
        found = await incident_of(self.ctx, incident)
        if found.state in OVER:
            raise Refused(
                f"incident {incident} is {found.state}; leave it out to change the plugin all the same",
                reason="INCIDENT_OVER",
                field="incident",
                state=found.state,
            )
        return found


async def _attempt(tx: Transaction, ctx: ServiceContext, wanted: Wanted, trace: str) -> Attempt:
    """The attempt that is wanted. Raises NotFound for what is not published."""
    plugin, action, incident = wanted.plugin, wanted.action, wanted.incident
    policy, _ = await policies.get(tx)
    version = await target(tx, wanted.plugin_id, plugin, action, wanted.target)
    release = await releases.get(tx, plugin.package, version) if version and action not in OWN else None
    named = wanted.target if action is Action.CONFIG_FIX else ""
    fix = await configuration(tx, wanted.plugin_id, plugin, named) if action is Action.CONFIG_FIX else None
    if action is Action.ROLLBACK and release is None and not wanted.target:
        # Nothing published is known to have run before: the agent's other slot is.
        version = ""
    if (version and action not in OWN and release is None) or (action is Action.CONFIG_FIX and fix is None):
        kind = "configuration" if action is Action.CONFIG_FIX else "release"
        raise NotFound(
            f"there is no {kind} {wanted.target} of package {plugin.package} for this plugin; publish it first",
            reason=f"{kind.upper()}_UNKNOWN",
            field="target",
            package=plugin.package,
            target=wanted.target,
        )
    brought = fix.digest if fix else release.digest if release else ""
    return Attempt(
        id=names.new_id(tx.now),
        incident=_bare(incident.name) if incident else "",
        decision="",
        plugin=wanted.plugin_id,
        merchant=plugin.merchant,
        package=plugin.package,
        action=action,
        from_release=plugin.release,
        to_release=version,
        digest=plugin.digest if action is Action.RESTART else brought,
        severity=wire.severity(incident.severity) if incident else Severity.LOW,
        symptom=incident.type if incident else "",
        round=incident.round if incident else 1,
        # A person chose, so there is nothing to be unsure of.
        confidence=1.0,
        bounds=bounds(ctx.settings, policy),
        create_time=tx.now,
        update_time=tx.now,
        deadline=tx.now + heart.HELD_LIMIT,
        from_generation=plugin.generation,
        trace=trace,
        configuration=fix.version if fix else "",
        author=wanted.author,
        request_id=wanted.request,
    )


def _same(known: Attempt, request: patcher_pb2.CreateAttemptRequest) -> Attempt:
    """The attempt of an earlier request with the same id. Raises Refused when that asked for something else."""
    where = _bare(request.plugin) in {"", known.plugin} and _bare(request.incident) == known.incident
    what = request.target in {"", known.target} and wire.ACTIVE.get(request.action) is known.action
    if not (where and what):
        raise Refused(
            "this request_id belongs to another request; use a fresh one",
            reason="REQUEST_ID_REUSED",
            field="request_id",
        )
    return known


def _request(given: str) -> str:
    if len(given) > LONGEST_REQUEST or not given.isprintable():
        raise Invalid(
            f"request_id must be printable and at most {LONGEST_REQUEST} characters; a UUID is best",
            reason="BAD_REQUEST_ID",
            field="request_id",
        )
    return given


def _bare(name: str) -> str:
    return name.rpartition("/")[2]
