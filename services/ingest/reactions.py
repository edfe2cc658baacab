"""Door 2, something happened: facts of decider and patcher move the incidents.

Rule: every reaction is right when its fact comes twice, late or out of order: the incident knows which attempts are
over and which round it is in, and whatever does not fit changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.facts import fact_name
from libs.common.names import is_uuid
from libs.common.telemetry import current_traceparent
from prunella.v1 import events_pb2
from prunella.v1.events_pb2 import Event
from services.ingest import incident_lifecycle
from services.ingest.context import ServiceContext, lock_incident, save_transition
from services.ingest.incident import Incident, Transition
from services.ingest.store import configurations, plugin_state
from services.ingest.wire import incidents as wire

HANDS_OVER = (events_pb2.ACTION_NOTIFY_OPS, events_pb2.ACTION_NO_ACTION, events_pb2.ACTION_UNSPECIFIED)

# The gate of patcher's policy that waits for the end of a storm.
STORM = "STORM"


async def on_decision_made(ctx: ServiceContext, event: Event, once: Once) -> None:
    """A decision to ask operators, or to do nothing, hands the incident to them at once."""
    made = event.decision_made
    if made.action not in HANDS_OVER:
        return
    reason = made.explanation or event.reason or "nothing can be done automatically"
    await _move(ctx, event, once, lambda one, now: incident_lifecycle.declined(one, made.round, reason, now))


async def on_attempt_created(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident is in progress."""
    made = event.attempt_created
    await _move(
        ctx,
        event,
        once,
        lambda one, now: incident_lifecycle.attempt_started(
            one, made.attempt, made.round, made.action, made.to_release, now
        ),
    )


async def on_attempt_held(ctx: ServiceContext, event: Event, once: Once) -> None:
    """An attempt that waits for the end of a storm keeps no incident from closing."""
    held = event.attempt_held
    if held.gate == STORM:
        await _move(ctx, event, once, lambda one, now: incident_lifecycle.attempt_held(one, held.attempt, now))


async def on_apply_authorized(ctx: ServiceContext, event: Event, once: Once) -> None:
    """From now on the attempt's outcome ends the incident."""
    attempt = event.apply_authorized.attempt
    await _move(ctx, event, once, lambda one, now: incident_lifecycle.attempt_permitted(one, attempt, now))


async def on_attempt_over(ctx: ServiceContext, event: Event, once: Once) -> None:
    """An attempt did not heal: the next round, or an operator."""
    outcome, rounds = wire.outcome(event), ctx.settings.rounds
    runs = await _runs(ctx, event) if fact_name(event) == "attempt_cancelled" else None
    await _move(
        ctx, event, once, lambda one, now: incident_lifecycle.remedy_failed(one, outcome, now, rounds=rounds, runs=runs)
    )


async def _runs(ctx: ServiceContext, event: Event) -> tuple[str, int] | None:
    """What the plugin runs, as beats report: a cancelled attempt switched nothing, but another one may have."""
    if not is_uuid(event.plugin):
        return None
    async with ctx.database.reading() as tx:
        state = await plugin_state.get(tx, event.plugin)
    return (state.release, state.generation) if state and state.release else None


async def on_attempt_succeeded(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident is mitigated: the last step of a healing."""
    done = event.attempt_succeeded
    attempt, low = done.attempt, done.verdict.low_evidence
    moved = await _move(
        ctx,
        event,
        once,
        lambda one, now: incident_lifecycle.mitigated(
            one, attempt, now, generation=done.generation, decision=done.decision, low_evidence=low
        ),
    )
    if moved is not None and moved.end_time is not None and not low:
        attributes = {"plugin": moved.plugin, "incident": moved.id, "attempt": attempt}
        ctx.telemetry.span_at(
            "verified healed", moved.end_time, ctx.clock.now(), parent=current_traceparent(), attributes=attributes
        )


async def on_configuration_published(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Plugins that have it, and of whom nothing was expected, should have it from now on."""
    new = event.configuration_published
    which = {"package": new.package, "plugin": new.plugin, "digest": new.digest}
    # Saved first: whoever reports it from then on adopts it by their own beat. All of it may be done twice.
    await ctx.database.transaction(lambda tx: configurations.save(tx, version=new.version, **which))
    after = configurations.NO_PLUGIN
    while True:
        async with ctx.database.reading() as tx:
            found = await configurations.plugins_with(tx, after=after, **which)
        if not found:
            break

        async def adopt(tx: Transaction, plugins: list[str] = found) -> set[str]:
            return await configurations.adopt(tx, plugins)

        for plugin in await ctx.database.transaction(adopt):
            ctx.committer.forget(plugin)
        after = found[-1]
    await once(_nothing)


async def _nothing(_tx: Transaction) -> None:
    return


async def _move(
    ctx: ServiceContext, event: Event, once: Once, transition: Callable[[Incident, datetime], Transition]
) -> Incident | None:
    """Applies a transition to the incident of a fact; returns the incident if it moved."""
    moved: Incident | None = None

    async def work(tx: Transaction) -> None:
        nonlocal moved
        moved = None
        if not is_uuid(event.incident) or not is_uuid(event.plugin):
            return
        before = await lock_incident(tx, event.incident, event.plugin)
        if before is None:
            return
        after = transition(before, tx.now)
        if await save_transition(tx, before, after, cause=event):
            moved = after.incident

    await once(work)
    if moved is not None:
        ctx.committer.forget(event.plugin)
    return moved


REACTIONS: dict[str, Reaction] = {
    "decision_made": on_decision_made,
    "attempt_created": on_attempt_created,
    "attempt_held": on_attempt_held,
    "apply_authorized": on_apply_authorized,
    "attempt_refused": on_attempt_over,
    "attempt_failed": on_attempt_over,
    "attempt_cancelled": on_attempt_over,
    "attempt_rolled_back": on_attempt_over,
    "attempt_rollback_failed": on_attempt_over,
    "attempt_unconfirmed": on_attempt_over,
    "attempt_succeeded": on_attempt_succeeded,
    "configuration_published": on_configuration_published,
}
