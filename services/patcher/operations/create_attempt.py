"""How an attempt begins, whoever wants it: a decision, a rollout or an operator.

Rule: the same gates, the same end for what cannot be done, and an attempt of lower severity that only waits makes room.
"""

from dataclasses import dataclass, replace
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import NotFound
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher.attempt import FINAL, HELD_LIMIT, Attempt, AttemptEvent, CancelRequested, State
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import (
    INCIDENT_OVER,
    GateResult,
    after_gates,
    bounds,
    evaluate_gates,
    observe,
    save,
)
from services.patcher.policy import KILL_SWITCH, PLUGIN_BUSY, Action, Hold, Refuse
from services.patcher.store import attempts, configurations, releases
from services.patcher.store import policy as policies
from services.patcher.store.configurations import Configuration

CAPABILITY = {
    Action.PATCH: "update",
    Action.ROLLBACK: "rollback",
    Action.RESTART: "restart",
    Action.CONFIG_FIX: "config_update",
}
# What needs its own capability, whatever it brings.
OWN_CAPABILITY = frozenset({Action.RESTART, Action.CONFIG_FIX})


@dataclass(frozen=True)
class Target:
    """What an action brings, as far as it is published: a release, a configuration, or neither."""

    release: str
    digest: str
    configuration: str = ""


async def resolve(tx: Transaction, plugin_id: str, plugin: ingest_pb2.Plugin, action: Action, wanted: str) -> Target:
    """What an action brings: the version that is wanted, or the one that fits when none is; without digest if unknown.

    A rollback to no known release goes back to whatever the agent has in its other slot: its release is empty.
    """
    if action is Action.RESTART:
        return Target(plugin.release, plugin.digest)
    if action is Action.CONFIG_FIX:
        fix = await _configuration(tx, plugin_id, plugin, wanted)
        return Target(plugin.release, fix.digest if fix else "", fix.version if fix else wanted)
    version = wanted
    if action is Action.ROLLBACK and not wanted:
        version = await attempts.previous_release(tx, plugin_id, plugin.release)
    release = await releases.get(tx, plugin.package, version) if version else None
    if action is Action.ROLLBACK and release is None and not wanted:
        return Target("", "")
    return Target(version, release.digest if release else "")


async def _configuration(
    tx: Transaction, plugin_id: str, plugin: ingest_pb2.Plugin, version: str
) -> Configuration | None:
    """The configuration of this version, or the one the plugin should have when none is wanted."""
    if not version:
        return await configurations.fitting(tx, plugin.package, plugin_id, plugin.expected_config_digest)
    found = await configurations.get(tx, plugin.package, version)
    return found if found is not None and found.plugin in {"", plugin_id} else None


async def draft(
    tx: Transaction, ctx: ServiceContext, plugin_id: str, plugin: ingest_pb2.Plugin, target: Target, **values: Any
) -> Attempt:
    """An attempt that has not passed any gate yet; `values` are those that only whoever wants it knows."""
    policy = await policies.get(tx)
    known: dict[str, Any] = {
        "plugin": plugin_id,
        "merchant": plugin.merchant,
        "package": plugin.package,
        "from_release": plugin.release,
        "to_release": target.release,
        "digest": target.digest,
        "configuration": target.configuration,
        "bounds": bounds(ctx.settings, policy),
        "create_time": tx.now,
        "update_time": tx.now,
        "deadline_time": tx.now + HELD_LIMIT,
        "from_generation": plugin.generation,
    }
    return Attempt(**known | values)


async def create(
    tx: Transaction,
    ctx: ServiceContext,
    wanted: Attempt,
    plugin: ingest_pb2.Plugin,
    cause: Event | None,
    *,
    author: str = "",
    reason: str = "",
) -> Attempt:
    """Evaluates the gates and saves the attempt with what follows; one that is refused is saved too.

    `author` is the operator who wants it, `reason` why it is wanted; `cause` is the decision's fact where one wants it.
    """
    gates = await _gates(tx, ctx, wanted, plugin, cause, by_operator=bool(author))
    change = heart.create(wanted, gates.observation, tx.now)
    if await attempts.incident_over(tx, wanted) and change.attempt.state not in FINAL:
        change = heart.end_at_creation(wanted, tx.now, AttemptEvent.CANCELLED, "", INCIDENT_OVER)
    # What a busy plugin runs may still be rolled back; that is looked at again when it is free.
    unfit, waits = _unfit(wanted, plugin), change.attempt.held_by == PLUGIN_BUSY
    if unfit and change.attempt.state not in FINAL and not (waits and unfit[0] is AttemptEvent.CANCELLED):
        change = heart.end_at_creation(wanted, tx.now, *unfit)
    if reason:
        facts = (replace(fact, actor=author or fact.actor, reason=f"{fact.reason}: {reason}") for fact in change.facts)
        change = replace(change, facts=tuple(facts))
    await save(tx, ctx, change, cause, new=True)
    await after_gates(tx, gates, change.attempt, cause)
    return change.attempt


async def _gates(
    tx: Transaction,
    ctx: ServiceContext,
    wanted: Attempt,
    plugin: ingest_pb2.Plugin,
    cause: Event | None,
    *,
    by_operator: bool,
) -> GateResult:
    gates = await evaluate_gates(tx, wanted)
    reply = gates.reply
    if CAPABILITY.get(wanted.action) and plugin.capabilities:
        needed = "rollback" if wanted.other_slot else "update" if wanted.digest else CAPABILITY[wanted.action]
        needed = CAPABILITY[wanted.action] if wanted.action in OWN_CAPABILITY else needed
        if needed not in plugin.capabilities and not isinstance(reply, Refuse):
            reply = Refuse("CAPABILITY", f"the agent cannot do {needed}")
    if isinstance(reply, Hold) and reply.gate == PLUGIN_BUSY:
        gates = await _preempt(tx, ctx, wanted, cause) or gates
        reply = gates.reply
    if by_operator and isinstance(reply, Hold) and reply.gate == KILL_SWITCH:
        # A decision waits for the release; an operator who is stopped shall know it, and ask again.
        reply = Refuse(reply.gate, reply.reason)
    return replace(gates, reply=reply)


def _unfit(wanted: Attempt, plugin: ingest_pb2.Plugin) -> tuple[AttemptEvent, str, str] | None:
    if wanted.action is Action.PATCH and not wanted.digest:
        return (
            AttemptEvent.FAILED,
            "release_unknown",
            f"release {wanted.package} {wanted.to_release or '(none)'} is not published",
        )
    if wanted.action is Action.CONFIG_FIX and not wanted.digest:
        what = f"configuration {wanted.configuration}" if wanted.configuration else "no configuration"
        missing = "is not published for this plugin" if wanted.configuration else "is published for this plugin"
        return AttemptEvent.FAILED, "configuration_unknown", f"{what} of {wanted.package} {missing}"
    if wanted.action is Action.CONFIG_FIX and wanted.digest == plugin.config_digest:
        why = f"the plugin has configuration {wanted.configuration} already"
        return AttemptEvent.FAILED, "configuration_in_force", why
    if wanted.action is Action.ROLLBACK and wanted.to_release and not wanted.digest:
        return AttemptEvent.FAILED, "release_unknown", f"release {wanted.package} {wanted.to_release} is not published"
    if wanted.other_slot and not wanted.from_generation:
        return (
            AttemptEvent.FAILED,
            "nothing_before",
            "it runs what it was installed with; nothing is known to go back to",
        )
    if plugin.release != wanted.from_release:
        why = f"the plugin runs {plugin.release} now, the decision was about {wanted.from_release}"
        return AttemptEvent.CANCELLED, "", why
    return None


async def _preempt(tx: Transaction, ctx: ServiceContext, wanted: Attempt, cause: Event | None) -> GateResult | None:
    """Ends an attempt of lower severity that only waits, and asks the gates again."""
    other = await attempts.occupying(tx, wanted.plugin, wanted.id)
    waits_for_approval = other is not None and other.state is State.AWAITING_APPROVAL
    waits = waits_for_approval or (
        other is not None and other.state in {State.PENDING, State.STAGED} and bool(other.held_by)
    )
    if other is None or not waits or other.severity >= wanted.severity:
        return None
    await observe(tx, ctx, other.id, CancelRequested("patcher", f"preempted by attempt {wanted.id}"), cause=cause)
    return await evaluate_gates(tx, wanted)


def unknown_target(package: str, target: str, *, config: bool, where: str = "") -> NotFound:
    """Why what is not published cannot be brought to a plugin."""
    kind = "configuration" if config else "release"
    message = f"there is no {kind} {target} of package {package}{where}; publish it first"
    return NotFound(message, reason=f"{kind.upper()}_UNKNOWN", field="target", package=package, target=target)
