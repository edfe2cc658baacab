"""Silence as an anomaly: an incident for every plugin that was not heard for too long, whether it left or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import new_traceparent, trace_id, use_traceparent
from services.ingest import incident_lifecycle, reopening
from services.ingest.context import ServiceContext
from services.ingest.detectors import BITS, heartbeat_missed, plugin_away
from services.ingest.finding import Finding
from services.ingest.gateway import storms
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
from services.ingest.store import incidents as store
from services.ingest.store import plugin_state, plugins
from services.ingest.store.plugins import Identity
from services.ingest.wire import incidents as wire

MOST = 500


async def look(ctx: ServiceContext, now: datetime) -> int:
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
    for quiet, judge in missed:
        await _miss(ctx, quiet, judge)
    return len(missed)


async def _miss(ctx: ServiceContext, quiet: Silence, judge: Callable[[float], Finding]) -> None:
    trace = new_traceparent()

    async def work(tx: Transaction) -> Incident | None:
        known = (await plugins.identities(tx, [quiet.plugin])).get(quiet.plugin)
        await plugin_state.lock(tx, quiet.plugin)
        state = await plugin_state.get(tx, quiet.plugin)
        # A beat, a goodbye or a new session may have come meanwhile.
        same = state is not None and (state.last_beat_time, state.away) == (quiet.last_beat_time, quiet.away)
        if known is None or state is None or not state.active or not same:
            return None
        absence = await _Absence.of(ctx, tx, known, state, judge)
        return await absence.apply(ctx, tx, trace)

    with use_traceparent(trace):
        incident = await ctx.database.transaction(work)
    ctx.committer.forget(quiet.plugin)
    if incident is not None:
        (REOPENED if incident.reopened else OPENED).labels(incident.type).inc()
        attributes = {"plugin": incident.plugin, "incident": incident.id}
        start, end, trace = incident.begin_time, ctx.clock.now(), incident.traceparent
        ctx.telemetry.span_at("silence", start, end, parent="", traceparent=trace, attributes=attributes)


@dataclass(frozen=True, slots=True)
class _Absence:
    """Who was not heard since when, and what that is."""

    identity: Identity
    state: PluginState
    finding: Finding
    since: datetime
    """From when on it is missed: the last beat, or the end of the time it may be away."""
    storm: str

    @classmethod
    async def of(
        cls,
        ctx: ServiceContext,
        tx: Transaction,
        identity: Identity,
        state: PluginState,
        judge: Callable[[float], Finding],
    ) -> _Absence:
        allowed = ctx.settings.away if judge is plugin_away.absence else 0.0
        # A beat from a time still to come was heard before the clock was set back.
        at = tx.now.timestamp()
        last_beat_time = min(state.last_beat_time, at - max(allowed, ctx.settings.silence))
        finding = judge(at - last_beat_time)
        since = datetime.fromtimestamp(last_beat_time + allowed, UTC)
        return cls(identity, state, finding, since, await storms.ongoing(tx, identity.package, finding.type))

    async def apply(self, ctx: ServiceContext, tx: Transaction, trace: str) -> Incident | None:
        """Opens its incident, or goes on with the one that ended just now; None when it has one."""
        rules = ctx.settings.reopening()
        last = await store.last_of(tx, self.identity.plugin, self.finding.type)
        await plugin_state.add_types(tx, self.identity.plugin, BITS[self.finding.type])
        if last is not None and reopening.continues(last, tx.now, rules):
            after = reopening.came_back(reopening.during(last, self.storm), self._recurrence(), tx.now, rules)
            await store.save(tx, after.incident)
        else:
            after = incident_lifecycle.opened(self._incident(tx.now, rules, trace))
            if not await store.insert(tx, after.incident):
                return None
        await _record(ctx, tx, after)
        return after.incident

    def _evidence(self) -> Evidence:
        return Evidence(self.finding.summary, dict(self.finding.figures))

    def _recurrence(self) -> Recurrence:
        state = self.state
        return Recurrence(self.finding.severity, self._evidence(), self.since, state.release, state.generation)

    def _incident(self, now: datetime, rules: reopening.Rules, trace: str) -> Incident:
        return new_incident(
            new_id(now),
            self.finding,
            now,
            self.since,
            act_within=rules.act_within,
            plugin=self.identity.plugin,
            merchant=self.identity.merchant,
            package=self.identity.package,
            evidence=self._evidence(),
            release=self.state.release,
            generation=self.state.generation,
            trace_id=trace_id(trace),
            traceparent=trace,
            storm=self.storm,
        )


async def _record(ctx: ServiceContext, tx: Transaction, after: Transition) -> None:
    incident = after.incident
    with use_traceparent(incident.traceparent):
        for event in wire.facts(after):
            tx.record(event)
    for event, traceparent in await storms.begin(tx, [(incident.package, incident.type)], ctx.settings.storm()):
        with use_traceparent(traceparent):
            tx.record(event)
