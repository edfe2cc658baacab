"""Door 3, time passed: silence is found, deadlines end what stood still, undelivered commands are looked at again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from libs.common.database import Transaction
from libs.common.idempotency import PRUNE_SECONDS, prune_requests
from libs.common.telemetry import use_traceparent
from services.ingest import incident_lifecycle, reopening, storm
from services.ingest.command_lifecycle import Command, State
from services.ingest.context import ServiceContext, lock_incident, save_transition
from services.ingest.gateway import silence
from services.ingest.incident import Incident, Transition
from services.ingest.store import commands, storms
from services.ingest.store import incidents as store
from services.ingest.wire import commands as command_wire
from services.ingest.wire import storms as storm_wire

MOST = 500


async def overdue(ctx: ServiceContext, now: datetime) -> int:
    """Hands incidents to an operator whose time to act has passed."""
    async with ctx.database.reading() as tx:
        late = await store.overdue(tx, now, MOST)
    count = 0
    for incident, plugin in late:
        count += await _late(ctx, incident, plugin, incident_lifecycle.overdue)
    return count


async def calm(ctx: ServiceContext, now: datetime) -> int:
    """Ends flapping incidents that have been calm for a whole window."""
    rules = ctx.settings.reopening()
    async with ctx.database.reading() as tx:
        found = await store.calm(tx, now - rules.within, MOST)
    for incident, plugin in found:
        await _late(ctx, incident, plugin, lambda one, at: reopening.calmed(one, at, rules))
    return len(found)


async def expired(ctx: ServiceContext, now: datetime) -> int:
    """Ends commands whose deadline passed without a receipt."""
    async with ctx.database.reading() as tx:
        late = await commands.overdue(tx, now, MOST)
    for command in late:

        async def end(tx: Transaction, command: Command = command) -> None:
            if await commands.end(tx, command.id, State.EXPIRED, "no word before the deadline"):
                tx.record(command_wire.finished_fact(command, "expired", None))

        with use_traceparent(command.traceparent), ctx.telemetry.span("sweep expired"):
            await ctx.database.transaction(end)
    return len(late)


async def deliver(ctx: ServiceContext, _now: datetime) -> int:
    """Has sessions look at commands no agent has confirmed; this also finds what a lost hint missed."""
    here = ctx.sessions.plugins()
    if not here:
        return 0
    async with ctx.database.reading() as tx:
        undelivered = await commands.undelivered(tx, MOST)
    for plugin in undelivered:
        ctx.sessions.wake(plugin)
    return len(undelivered)


async def end_storms(ctx: ServiceContext, _now: datetime) -> int:
    """Ends storms that have cooled down; what waited for their end goes on."""
    async with ctx.database.reading() as tx:
        found = await storms.ongoing(tx, MOST)
    for row in found:

        async def look(tx: Transaction, known: storms.StoredStorm = row) -> None:
            await storms.lock(tx, known.storm.package, known.storm.type)
            fresh = await storms.get(tx, known.id)
            if fresh is None or fresh.storm.state is not storm.State.ONGOING:
                return
            rules = ctx.settings.storm()
            counts = await storms.counts(tx, fresh.storm, tx.now, rules)
            after = storm.advance(fresh.storm, counts, tx.now, rules)
            if after.storm != fresh.storm:
                row = replace(fresh, storm=after.storm, end_reason=after.reason)
                await storms.save(tx, row)
                if after.event:
                    tx.record(storm_wire.fact_of(row, after))

        with use_traceparent(row.traceparent):
            await ctx.database.transaction(look)
    return len(found)


async def _late(
    ctx: ServiceContext, incident: str, plugin: str, transition: Callable[[Incident, datetime], Transition]
) -> bool:
    async def work(tx: Transaction) -> bool:
        before = await lock_incident(tx, incident, plugin)
        return before is not None and await save_transition(tx, before, transition(before, tx.now))

    async with ctx.database.reading() as tx:
        known = await store.get(tx, incident)
    with use_traceparent(known.traceparent if known else ""), ctx.telemetry.span("sweep overdue"):
        moved = await ctx.database.transaction(work)
    if moved:
        ctx.committer.forget(plugin)
    return moved


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "silence": (5.0, silence.look),
    "overdue": (2.0, overdue),
    "calm": (2.0, calm),
    "expired": (1.0, expired),
    "deliver": (1.0, deliver),
    "storms": (2.0, end_storms),
    "prune_requests": (PRUNE_SECONDS, prune_requests),
}
