"""Door 3, time passed: silence is found, deadlines end what stood still, undelivered commands are looked at again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import new_traceparent, trace_id, use_traceparent
from services.ingest import detection, incidents, storm
from services.ingest.commands import Command, State
from services.ingest.context import ServiceContext, keep, locked
from services.ingest.detection import BIT, HEARTBEAT_MISSED, Severity
from services.ingest.gateway import storms as gateway
from services.ingest.gateway.changes import OPENED
from services.ingest.incidents import Evidence, Incident
from services.ingest.liveness import GAP, PATIENCE, Hearing, Quiet, hearing_since, silent
from services.ingest.store import commands, plugins, pulses, storms
from services.ingest.store import incidents as store
from services.ingest.wire import commands as command_wire
from services.ingest.wire import incidents as wire
from services.ingest.wire import storms as storm_wire

MOST = 500


async def silence(ctx: ServiceContext, now: datetime) -> int:
    """Notes that this replica hears, and opens an incident for every plugin whose silence says something."""
    at = now.timestamp()

    async def hear(tx: Transaction) -> list[Hearing]:
        return await pulses.hear(tx, ctx.replica, at, GAP)

    hearings = await ctx.database.transaction(hear)
    since = hearing_since(hearings, at)
    if since is None:
        return 0
    settings = ctx.settings
    if at - since <= settings.silence:
        return 0
    async with ctx.database.reading() as tx:
        before, polled_before = at - settings.silence, at - max(settings.silence, PATIENCE * settings.poll)
        candidates = await pulses.quiet(tx, before, polled_before, BIT[HEARTBEAT_MISSED], MOST)
    missed = [quiet for quiet in candidates if silent(quiet, since, at, silence=settings.silence, poll=settings.poll)]
    for quiet in missed:
        await _blame(ctx, quiet)
    return len(missed)


async def overdue(ctx: ServiceContext, now: datetime) -> int:
    """Hands incidents to a person whose time to act has passed."""
    async with ctx.database.reading() as tx:
        late = await store.overdue(tx, now, MOST)
    count = 0
    for incident, plugin in late:
        count += await _late(ctx, incident, plugin)
    return count


async def expired(ctx: ServiceContext, now: datetime) -> int:
    """Ends commands whose deadline passed without a word."""
    async with ctx.database.reading() as tx:
        late = await commands.overdue(tx, now, MOST)
        known = await plugins.identities(tx, sorted({command.plugin for command in late}))
    for command in late:
        merchant = known[command.plugin].merchant

        async def end(tx: Transaction, command: Command = command, merchant: str = merchant) -> None:
            if await commands.end(tx, command.id, State.EXPIRED, "no word before the deadline"):
                tx.record(command_wire.finished_fact(command, "expired", merchant, None))

        with use_traceparent(command.traceparent), ctx.telemetry.span("sweep expired"):
            await ctx.database.transaction(end)
    return len(late)


async def deliver(ctx: ServiceContext, now: datetime) -> int:
    """Has sessions look at commands no receipt came for; this also finds what a lost hint missed."""
    del now
    here = ctx.sessions.plugins()
    if not here:
        return 0
    async with ctx.database.reading() as tx:
        waiting = await commands.undelivered(tx, MOST)
    for plugin in waiting:
        ctx.sessions.wake(plugin)
    return len(waiting)


async def storming(ctx: ServiceContext, now: datetime) -> int:
    """Looks whether storms have calmed down; what waited for their end goes on."""
    del now
    async with ctx.database.reading() as tx:
        found = await storms.raging(tx, MOST)
    for row in found:

        async def look(tx: Transaction, known: storms.Row = row) -> None:
            await storms.lock(tx, known.storm.package, known.storm.type)
            fresh = await storms.get(tx, known.id)
            if fresh is None or fresh.storm.state is not storm.State.STORM:
                return
            rules = ctx.settings.storm()
            counts = await storms.counts(tx, fresh.storm, tx.now, rules)
            step = storm.next(fresh.storm, counts, tx.now, rules)
            if step.storm != fresh.storm:
                after = replace(fresh, storm=step.storm, end_reason=step.reason)
                await storms.save(tx, after)
                if step.told:
                    tx.record(storm_wire.told(after, step))

        with use_traceparent(row.traceparent):
            await ctx.database.transaction(look)
    return len(found)


async def _blame(ctx: ServiceContext, quiet: Quiet) -> None:
    trace = new_traceparent()

    async def work(tx: Transaction) -> Incident | None:
        known = (await plugins.identities(tx, [quiet.plugin])).get(quiet.plugin)
        await pulses.lock(tx, quiet.plugin)
        found = await pulses.get(tx, quiet.plugin)
        if known is None or found is None or not found[0].active or found[0].heard != quiet.heard:
            return None
        pulse = found[0]
        seconds = tx.now.timestamp() - quiet.heard
        incident = Incident(
            id=new_id(tx.now),
            plugin=quiet.plugin,
            merchant=known.merchant,
            package=known.package,
            type=HEARTBEAT_MISSED,
            severity=Severity.CRITICAL,
            state=incidents.State.OPEN,
            round=1,
            open_time=tx.now,
            first_bad_beat_time=datetime.fromtimestamp(quiet.heard, UTC),
            update_time=tx.now,
            act_by=tx.now + timedelta(seconds=ctx.settings.act_by),
            evidence=Evidence(f"no heartbeat for {seconds:.0f} s", {"silence_seconds": seconds}),
            release=pulse.release,
            generation=pulse.generation,
            trace_id=trace_id(trace),
            traceparent=trace,
            storm=await gateway.raging(tx, known.package, HEARTBEAT_MISSED),
        )
        step = incidents.opened(incident)
        await pulses.raise_types(tx, quiet.plugin, detection.BIT[HEARTBEAT_MISSED])
        if not await store.insert(tx, step.incident):
            return None
        for event in wire.facts(step):
            tx.record(event)
        pair = (known.package, HEARTBEAT_MISSED)
        for event, traceparent in await gateway.look(tx, [pair], ctx.settings.storm()):
            with use_traceparent(traceparent):
                tx.record(event)
        return step.incident

    with use_traceparent(trace):
        incident = await ctx.database.transaction(work)
    ctx.committer.forget(quiet.plugin)
    if incident is not None:
        OPENED.labels(HEARTBEAT_MISSED).inc()
        attributes = {"plugin": incident.plugin, "incident": incident.id}
        start, end = incident.open_time, ctx.clock.now()
        ctx.telemetry.span_at("silence", start, end, parent="", traceparent=trace, attributes=attributes)


async def _late(ctx: ServiceContext, incident: str, plugin: str) -> bool:
    async def work(tx: Transaction) -> bool:
        before = await locked(tx, incident, plugin)
        return before is not None and await keep(tx, before, incidents.overdue(before, tx.now))

    async with ctx.database.reading() as tx:
        known = await store.get(tx, incident)
    with use_traceparent(known.traceparent if known else ""), ctx.telemetry.span("sweep overdue"):
        return await ctx.database.transaction(work)


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "silence": (5.0, silence),
    "overdue": (2.0, overdue),
    "expired": (1.0, expired),
    "deliver": (1.0, deliver),
    "storms": (2.0, storming),
}
