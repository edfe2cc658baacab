"""Door 2, something happened: a decision is to be carried out, an agent sent a receipt, a cause is gone.

Rule: one attempt per decision, however often and in whatever order facts arrive. Before anything begins ingest is
queried whether the cause still stands; what a late receipt means is decided by the heart.
"""

import asyncio
from typing import Any

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import current_traceparent
from prunella.v1.events_pb2 import Event
from services.patcher import wire
from services.patcher.attempt import CancelRequested, IllnessOver, Observation
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import observe
from services.patcher.operations.create_attempt import create, draft, resolve
from services.patcher.operations.ingest_queries import count_plugins, get_plugin, is_current
from services.patcher.store import attempts, fleets

PLAYBOOK = "playbook"  # the origin of a decision that people wrote down
MOST_INPUTS, LONGEST_INPUT = 10, 4096


async def on_decision_made(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Begins an attempt. Raises Unavailable when ingest is away."""
    decision = event.decision_made
    action = wire.ACTIVE.get(decision.action)
    plugin, fleet = None, None
    if action is not None:
        # Three questions, one wait: somebody's plugin is broken meanwhile.
        plugin, current, fleet = await asyncio.gather(
            get_plugin(ctx, event.plugin),
            is_current(ctx, event.incident, decision.round),
            count_plugins(ctx, decision.package),
        )
        plugin = plugin if current else None
    if action is None or plugin is None or plugin.state != "active":
        await once(_nothing)
        return
    attempt, trace = new_id(), current_traceparent()

    async def begin(tx: Transaction) -> None:
        if await attempts.of_decision(tx, decision.decision):
            return
        if fleet is not None:
            await fleets.put(tx, decision.package, fleet)
        target = await resolve(tx, event.plugin, plugin, action, decision.release)
        values = _values(event, plugin.release)
        wanted = await draft(
            tx, ctx, event.plugin, plugin, target, id=attempt, action=action, traceparent=trace, **values
        )
        await create(tx, ctx, wanted, plugin, event)

    await once(begin)


def _values(event: Event, release: str) -> dict[str, Any]:
    """What only the decision knows of an attempt."""
    decision = event.decision_made
    inputs = decision.evidence.failing_inputs[:MOST_INPUTS]
    return {
        "incident": event.incident,
        "decision": decision.decision,
        "from_release": decision.from_release or release,
        "severity": wire.severity(decision.severity),
        "symptom": decision.type,
        "round": decision.round,
        "confidence": decision.confidence,
        "named": decision.origin == PLAYBOOK,
        "failing_inputs": tuple(text[:LONGEST_INPUT] for text in inputs),
    }


async def on_command_finished(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The agent's word on a command."""
    attempt, receipt = wire.command_finished(event)

    async def apply(tx: Transaction) -> None:
        if attempt:
            await observe(tx, ctx, attempt, receipt, cause=event)

    await once(apply)


async def on_cause_gone(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident ended or a person took over, or the plugin left: what has no permit is called off."""
    reason = event.reason or "its cause is gone"
    wanted: Observation = CancelRequested(event.actor or event.source, reason)
    if event.incident_closed.healed_by_itself:
        wanted = IllnessOver(reason)

    async def cancel_all(tx: Transaction) -> None:
        column, value = ("incident", event.incident) if event.incident else ("plugin", event.plugin)
        for attempt in await attempts.live_of(tx, column, value):
            await observe(tx, ctx, attempt, wanted, cause=event)

    await once(cancel_all)


async def _nothing(_tx: Transaction) -> None:
    return


REACTIONS: dict[str, Reaction] = {
    "decision_made": on_decision_made,
    "command_finished": on_command_finished,
    "incident_closed": on_cause_gone,
    "incident_mitigated": on_cause_gone,
    "incident_escalated": on_cause_gone,
    "plugin_retired": on_cause_gone,
}
