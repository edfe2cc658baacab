"""Door 2, something happened: what decider and patcher tell moves the incidents.

Rule: every reaction is right when its fact comes twice, late or out of order: the incident knows which attempts are
over and which round it is in, and whatever does not fit changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.facts import fact_name
from libs.common.telemetry import current_traceparent
from prunella.v1 import events_pb2
from prunella.v1.events_pb2 import Event
from services.ingest import incidents
from services.ingest.context import ServiceContext, keep, locked
from services.ingest.gateway.identity import is_uuid
from services.ingest.incidents import Incident, Step
from services.ingest.store import configurations, pulses
from services.ingest.wire import incidents as wire

HANDS_OVER = (events_pb2.ACTION_NOTIFY_OPS, events_pb2.ACTION_NO_ACTION, events_pb2.ACTION_UNSPECIFIED)

# The gate of patcher's policy that waits for the end of a storm.
STORM = "STORM"


async def on_decision_made(ctx: ServiceContext, event: Event, once: Once) -> None:
    """A decision to ask people, or to do nothing, hands the incident to a person at once."""
    made = event.decision_made
    if made.action not in HANDS_OVER:
        return
    reason = made.explanation or event.reason or "nothing can be done automatically"
    await _move(ctx, event, once, lambda one, now: incidents.declined(one, made.round, reason, now))


async def on_attempt_created(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident is in progress."""
    made = event.attempt_created
    await _move(
        ctx,
        event,
        once,
        lambda one, now: incidents.begun(one, made.attempt, made.round, made.action, made.to_release, now),
    )


async def on_attempt_held(ctx: ServiceContext, event: Event, once: Once) -> None:
    """An attempt that waits for the end of a storm keeps no incident from closing."""
    told = event.attempt_held
    if told.gate == STORM:
        await _move(ctx, event, once, lambda one, now: incidents.held(one, told.attempt, now))


async def on_apply_authorized(ctx: ServiceContext, event: Event, once: Once) -> None:
    """An attempt that waited goes on."""
    await _move(ctx, event, once, lambda one, now: incidents.applying(one, event.apply_authorized.attempt, now))


async def on_attempt_over(ctx: ServiceContext, event: Event, once: Once) -> None:
    """An attempt did not heal: the next round, or a person."""
    outcome, rounds = wire.outcome(event), ctx.settings.rounds
    runs = await _runs(ctx, event) if fact_name(event) == "attempt_cancelled" else None
    await _move(ctx, event, once, lambda one, now: incidents.missed(one, outcome, now, rounds=rounds, runs=runs))


async def _runs(ctx: ServiceContext, event: Event) -> tuple[str, int] | None:
    """What the plugin runs, as beats say: a cancelled attempt switched nothing, but another one may have."""
    if not is_uuid(event.plugin):
        return None
    async with ctx.database.reading() as tx:
        found = await pulses.get(tx, event.plugin)
    return (found[0].release, found[0].generation) if found and found[0].release else None


async def on_attempt_succeeded(ctx: ServiceContext, event: Event, once: Once) -> None:
    """The incident is mitigated: the last step of a healing."""
    attempt = event.attempt_succeeded.attempt
    moved = await _move(ctx, event, once, lambda one, now: incidents.mitigated(one, attempt, now))
    if moved is not None and moved.end_time is not None:
        attributes = {"plugin": moved.plugin, "incident": moved.id, "attempt": attempt}
        ctx.telemetry.span_at(
            "verified healed", moved.end_time, ctx.clock.now(), parent=current_traceparent(), attributes=attributes
        )


async def on_configuration_published(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Plugins that have it, and of whom nothing was expected, should have it from now on."""
    told = event.configuration_published
    which = {"package": told.package, "plugin": told.plugin, "digest": told.digest}
    # Known first: whoever is heard with it from then on adopts it by their own beat. All of it may be done twice.
    await ctx.database.transaction(lambda tx: configurations.know(tx, version=told.version, **which))
    after = configurations.NOBODY
    while True:
        async with ctx.database.reading() as tx:
            found = await configurations.having(tx, after=after, **which)
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
    ctx: ServiceContext, event: Event, once: Once, step: Callable[[Incident, datetime], Step]
) -> Incident | None:
    """Applies a step to the incident of a fact; the incident if it moved."""
    moved: Incident | None = None

    async def work(tx: Transaction) -> None:
        nonlocal moved
        moved = None
        if not is_uuid(event.incident) or not is_uuid(event.plugin):
            return
        before = await locked(tx, event.incident, event.plugin)
        if before is None:
            return
        taken = step(before, tx.now)
        if await keep(tx, before, taken, cause=event):
            moved = taken.incident

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
