"""Door 3, time passed: silence is found, deadlines end what stood still, undelivered commands are looked at again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from libs.common.database import Transaction
from libs.common.idempotency import PRUNE_SECONDS, prune_requests
from libs.common.names import new_id
from libs.common.telemetry import new_traceparent, trace_id, use_traceparent
from services.ingest import incident_lifecycle, reopening, storm
from services.ingest.command_lifecycle import Command, State
from services.ingest.context import ServiceContext, lock_incident, save_transition
from services.ingest.detectors import BITS, heartbeat_missed, plugin_away
from services.ingest.finding import Finding
from services.ingest.gateway import storms as gateway
from services.ingest.gateway.findings import OPENED, REOPENED
from services.ingest.incident import Evidence, Incident, Transition, new_incident
from services.ingest.liveness import (
    GAP,
    SET_BACK,
    Silence,
    Uptime,
    is_away_too_long,
    is_missed,
    listening_since,
    tolerated,
)
from services.ingest.plugin_state import PluginState
from services.ingest.reopening import Recurrence
from services.ingest.store import commands, plugin_state, plugins, storms
from services.ingest.store import incidents as store
from services.ingest.store.plugins import Identity
from services.ingest.wire import commands as command_wire
from services.ingest.wire import incidents as wire
from services.ingest.wire import storms as storm_wire

MOST = 500


async def silence(ctx: ServiceContext, now: datetime) -> int:
    """Notes that this replica runs, and opens an incident for every plugin whose silence is an anomaly."""
    at = now.timestamp()

    async def note(tx: Transaction) -> list[Uptime]:
        return await plugin_state.saw_replica(tx, ctx.replica, at, GAP)

    since = listening_since(await ctx.database.transaction(note), at)
    if since is None:
        return 0
    limits = {"silence": ctx.settings.silence, "poll": ctx.settings.poll}
    if at - since <= ctx.settings.silence:
        return 0
    # As long as nobody who left can be missed yet, many of them must not hide who is silent.
    away_before = at - ctx.settings.away if at - since > ctx.settings.away else 0.0
    async with ctx.database.reading() as tx:
        before, polled_before = at - ctx.settings.silence, at - tolerated(**limits, polling=True)
        candidates = await plugin_state.silent(
            tx,
            before,
            polled_before,
            heartbeat_missed.BIT,
            MOST,
            ahead=at + SET_BACK,
            away_before=away_before,
            away_missed=plugin_away.BIT,
        )
    missed = [(quiet, heartbeat_missed.silence) for quiet in candidates if is_missed(quiet, since, at, **limits)]
    away = [quiet for quiet in candidates if is_away_too_long(quiet, since, at, away=ctx.settings.away)]
    missed += [(quiet, plugin_away.absence) for quiet in away]
    for quiet, finding in missed:
        await _open_missed(ctx, quiet, finding)
    return len(missed)


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


async def _open_missed(ctx: ServiceContext, quiet: Silence, judge: Callable[[float], Finding]) -> None:
    trace = new_traceparent()

    async def work(tx: Transaction) -> Incident | None:
        known = (await plugins.identities(tx, [quiet.plugin])).get(quiet.plugin)
        await plugin_state.lock(tx, quiet.plugin)
        state = await plugin_state.get(tx, quiet.plugin)
        # A beat, a goodbye or a new session may have come meanwhile.
        same = state is not None and (state.last_beat_time, state.away) == (quiet.last_beat_time, quiet.away)
        if known is None or state is None or not state.active or not same:
            return None
        return await _missed_incident(ctx, tx, known, state, judge, trace)

    with use_traceparent(trace):
        incident = await ctx.database.transaction(work)
    ctx.committer.forget(quiet.plugin)
    if incident is not None:
        (REOPENED if incident.reopened else OPENED).labels(incident.type).inc()
        attributes = {"plugin": incident.plugin, "incident": incident.id}
        start, end, trace = incident.begin_time, ctx.clock.now(), incident.traceparent
        ctx.telemetry.span_at("silence", start, end, parent="", traceparent=trace, attributes=attributes)


async def _missed_incident(
    ctx: ServiceContext,
    tx: Transaction,
    known: Identity,
    state: PluginState,
    judge: Callable[[float], Finding],
    trace: str,
) -> Incident | None:
    # Who may be away for a while is missed from the end of that while on.
    allowed = ctx.settings.away if judge is plugin_away.absence else 0.0
    # A beat from a time still to come was heard before the clock was set back.
    at = tx.now.timestamp()
    last_beat_time = min(state.last_beat_time, at - max(allowed, ctx.settings.silence))
    finding = judge(at - last_beat_time)
    evidence = Evidence(finding.summary, dict(finding.figures))
    bad_since = datetime.fromtimestamp(last_beat_time + allowed, UTC)
    rules = ctx.settings.reopening()
    last = await store.last_of(tx, known.plugin, finding.type)
    ongoing = await gateway.ongoing(tx, known.package, finding.type)
    await plugin_state.add_types(tx, known.plugin, BITS[finding.type])
    if last is not None and reopening.continues(last, tx.now, rules):
        again = Recurrence(finding.severity, evidence, bad_since, state.release, state.generation)
        after = reopening.came_back(reopening.during(last, ongoing), again, tx.now, rules)
        await store.save(tx, after.incident)
    else:
        incident = new_incident(
            new_id(tx.now),
            finding,
            tx.now,
            bad_since,
            act_within=rules.act_within,
            plugin=known.plugin,
            merchant=known.merchant,
            package=known.package,
            evidence=evidence,
            release=state.release,
            generation=state.generation,
            trace_id=trace_id(trace),
            traceparent=trace,
            storm=ongoing,
        )
        after = incident_lifecycle.opened(incident)
        if not await store.insert(tx, after.incident):
            return None
    await _record_missed(ctx, tx, after)
    return after.incident


async def _record_missed(ctx: ServiceContext, tx: Transaction, after: Transition) -> None:
    incident = after.incident
    with use_traceparent(incident.traceparent):
        for event in wire.facts(after):
            tx.record(event)
    for event, traceparent in await gateway.begin(tx, [(incident.package, incident.type)], ctx.settings.storm()):
        with use_traceparent(traceparent):
            tx.record(event)


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
    "silence": (5.0, silence),
    "overdue": (2.0, overdue),
    "calm": (2.0, calm),
    "expired": (1.0, expired),
    "deliver": (1.0, deliver),
    "storms": (2.0, end_storms),
    "prune_requests": (PRUNE_SECONDS, prune_requests),
}
