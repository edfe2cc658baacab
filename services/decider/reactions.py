"""Door 2, something happened: an incident wants a decision, an attempt has ended and teaches.

Rule: one decision per incident and round, and one lesson per attempt and outcome, however often and in whatever
order facts arrive. An incident that came back teaches first, where it speaks against what had healed it, and then wants
the next decision. A decision is made only while ingest says that the incident stands in that round.
"""

import asyncio
from dataclasses import replace

from libs.common.bus import Once, Reaction, fact_name
from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.decider import wire
from services.decider.context import ServiceContext, decide, still_open
from services.decider.learning import Label, label_outcome
from services.decider.store import decisions, learning

_feedback = counter("feedback_total", "Ends of attempts the decider learned of", ("label",))


async def on_incident(ctx: ServiceContext, event: Event, once: Once) -> None:
    """incident_opened, incident_round_started: decides on the round. Raises Unavailable when ingest is away."""
    inputs = wire.inputs_of(event)
    standing, _ = await asyncio.gather(still_open(ctx, event.incident, inputs.round), ctx.policy.refresh())
    if not standing:
        await once(_nothing)
        return
    decision = new_id()

    async def work(tx: Transaction) -> None:
        await decide(tx, ctx, event, inputs, decision)

    await once(work)


async def on_reopened(ctx: ServiceContext, event: Event, once: Once) -> None:
    """incident_reopened: learns that the same came back under a remedy, and decides on the round with that."""
    inputs = wire.inputs_of(event)
    standing, _ = await asyncio.gather(still_open(ctx, event.incident, inputs.round), ctx.policy.refresh(max_age=1.0))
    decision = new_id()

    async def work(tx: Transaction) -> None:
        await _learn(tx, ctx, event)
        if standing:
            await decide(tx, ctx, event, inputs, decision)

    await once(work)


async def on_attempt_ended(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The facts that end an attempt: saves the feedback, and counts it when it says something about the remedy."""
    await ctx.policy.refresh(max_age=1.0)

    async def work(tx: Transaction) -> None:
        await _learn(tx, ctx, event)

    await once(work)


async def _learn(tx: Transaction, ctx: ServiceContext, event: Event) -> None:
    """What was committed on low evidence teaches nothing before its watch has ended."""
    ended = wire.attempt_ended(event)
    if ended.low_evidence:
        return
    labelled = label_outcome(fact_name(event), failure=ended.failure, dead_man=ended.dead_man)
    if not ctx.policy.learning:
        # People switched learning off: the outcome is saved and teaches nothing.
        labelled = replace(labelled, label=Label.NEUTRAL)
    decision = await decisions.get(tx, ended.decision) if ended.decision else None
    # A person's own attempt has no decision of ours to judge.
    if decision is not None:
        reason = event.reason or labelled.outcome
        feedback = learning.Feedback(ended.attempt, decision, labelled, reason, event.id, tx.now)
        if await learning.add(tx, feedback):
            tx.after_commit(_feedback.labels(labelled.label.value).inc)


async def _nothing(_tx: Transaction) -> None:
    return


REACTIONS: dict[str, Reaction] = {
    "incident_opened": on_incident,
    "incident_round_started": on_incident,
    "incident_reopened": on_reopened,
    "attempt_succeeded": on_attempt_ended,
    "attempt_watch_ended": on_attempt_ended,
    "attempt_rolled_back": on_attempt_ended,
    "attempt_rollback_failed": on_attempt_ended,
    "attempt_failed": on_attempt_ended,
    "attempt_refused": on_attempt_ended,
    "attempt_cancelled": on_attempt_ended,
}
