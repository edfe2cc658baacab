"""Door 2, something happened: a decision wants to be carried out, an agent has spoken, a cause is gone.

Rule: one attempt per decision, however often and in whatever order facts arrive. Before anything begins ingest is asked
whether the cause still stands; what an attempt makes of a late word is its heart's business.
"""

import asyncio

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import current_traceparent
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import DecisionMade, Event
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import Attempt, CancelRequested
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import bounds, observe
from services.patcher.operations.create_attempt import OWN, configuration, target
from services.patcher.operations.create_attempt import begin as begin_attempt
from services.patcher.operations.ingest_queries import fleet_of, plugin_of, stands
from services.patcher.policy import Action
from services.patcher.store import attempts, fleets, releases
from services.patcher.store import policy as policies

MOST_INPUTS, LONGEST_INPUT = 10, 4096


async def on_decision_made(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Begins an attempt. Raises Unavailable when ingest is away."""
    told = event.decision_made
    action = wire.ACTIVE.get(told.action)
    plugin, fleet = None, None
    if action is not None:
        # Three questions, one wait: somebody's plugin is broken meanwhile.
        plugin, status, fleet = await asyncio.gather(
            plugin_of(ctx, event.plugin),
            stands(ctx, event.incident, told.round),
            fleet_of(ctx, told.package),
        )
        plugin = plugin if status else None
    if action is None or plugin is None or plugin.state != "active":
        await once(_nothing)
        return
    attempt, trace = new_id(), current_traceparent()

    async def begin(tx: Transaction) -> None:
        if await attempts.of_decision(tx, told.decision):
            return
        if fleet is not None:
            await fleets.put(tx, told.package, fleet)
        wanted = await _wanted(tx, ctx, event, plugin, action, attempt, trace)
        await begin_attempt(tx, ctx, wanted, plugin, event)

    await once(begin)


async def _wanted(
    tx: Transaction,
    ctx: ServiceContext,
    event: Event,
    plugin: ingest_pb2.Plugin,
    action: Action,
    attempt: str,
    trace: str,
) -> Attempt:
    decision: DecisionMade = event.decision_made
    policy, _ = await policies.get(tx)
    version = await target(tx, event.plugin, plugin, action, decision.release)
    release = await releases.get(tx, plugin.package, version) if version and action not in OWN else None
    fix = await configuration(tx, event.plugin, plugin, decision.release) if action is Action.CONFIG_FIX else None
    if action is Action.ROLLBACK and release is None and not decision.release:
        # Nothing published is known to have run before: the agent's other slot is.
        version = ""
    return Attempt(
        id=attempt,
        incident=event.incident,
        decision=decision.decision,
        plugin=event.plugin,
        merchant=plugin.merchant,
        package=plugin.package,
        action=action,
        from_release=decision.from_release or plugin.release,
        to_release=version,
        digest=fix.digest
        if fix
        else release.digest
        if release
        else (plugin.digest if action is Action.RESTART else ""),
        severity=wire.severity(decision.severity),
        symptom=decision.type,
        round=decision.round,
        confidence=decision.confidence,
        bounds=bounds(ctx.settings, policy),
        create_time=tx.now,
        update_time=tx.now,
        deadline=tx.now + heart.HELD_LIMIT,
        from_generation=plugin.generation,
        failing_inputs=tuple(text[:LONGEST_INPUT] for text in decision.evidence.failing_inputs[:MOST_INPUTS]),
        trace=trace,
        configuration=fix.version if fix else decision.release if action is Action.CONFIG_FIX else "",
    )


async def on_command_finished(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The agent's word on a command."""
    attempt, word = wire.command_finished(event)

    async def hear(tx: Transaction) -> None:
        if attempt:
            await observe(tx, ctx, attempt, word, cause=event)

    await once(hear)


async def on_cause_gone(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident ended or a person took over, or the plugin left: what has no permit is called off."""

    async def call_off(tx: Transaction) -> None:
        column, value = ("incident", event.incident) if event.incident else ("plugin", event.plugin)
        wish = CancelRequested(event.actor or event.source, event.reason or "its cause is gone")
        for attempt in await attempts.live_of(tx, column, value):
            await observe(tx, ctx, attempt, wish, cause=event)

    await once(call_off)


async def _nothing(_tx: Transaction) -> None:
    return


REACTIONS: dict[str, Reaction] = {
    "decision_made": on_decision_made,
    "command_finished": on_command_finished,
    "incident_closed": on_cause_gone,
    "incident_escalated": on_cause_gone,
    "plugin_retired": on_cause_gone,
}
