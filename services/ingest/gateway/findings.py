"""What the findings of beats do to incidents, within the transaction that stores the beats.

Rule: the state of a plugin is written first; only where that succeeded do findings open, reopen or worsen incidents and
healthy windows close them. The types in the state afterwards are those of the incidents it is ill with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import counter, trace_id
from prunella.v1.events_pb2 import ACTION_CONFIG_FIX, Event
from services.ingest import detectors, incident_lifecycle, reopening
from services.ingest.beat import Health
from services.ingest.detectors import config_drift
from services.ingest.finding import Finding
from services.ingest.gateway import storms
from services.ingest.gateway.batch import PluginBatch
from services.ingest.incident import Evidence, Incident, Transition, new_incident
from services.ingest.observation import Observation
from services.ingest.reopening import Recurrence
from services.ingest.store import incidents as store
from services.ingest.store import plugin_state, plugins
from services.ingest.storm import Rules as StormRules
from services.ingest.wire import incidents as wire
from services.ingest.wire import plugins as plugin_wire

OPENED = counter("incidents_opened_total", "Incidents that were opened, by type", ("type",))
REOPENED = counter("incidents_reopened_total", "Incidents that came back soon after their end, by type", ("type",))


@dataclass(slots=True)
class Changes:
    """What a transaction did besides storing states: facts with their traces, incidents it opened or reopened (with the
    sequence of the beat), states it changed once more.
    """

    facts: list[tuple[Event, str]] = field(default_factory=list)
    opened: list[tuple[Incident, int]] = field(default_factory=list)
    changed_states: set[str] = field(default_factory=set)


async def apply(
    tx: Transaction,
    batches: Sequence[PluginBatch],
    *,
    healthy_windows: int,
    reopening_rules: reopening.Rules,
    rules: StormRules,
) -> Changes:
    """Moves incidents as the findings say, and begins the storms they make. So many `healthy_windows` close."""
    changes = Changes()
    concerned = [batch for batch in batches if any(seen.findings or seen.wellness for seen in batch.observations)]
    active: dict[str, dict[str, Incident]] = {batch.state.plugin: {} for batch in concerned}
    if concerned:
        for incident in await store.active_of(tx, sorted(active)):
            active[incident.plugin][incident.type] = incident
    for batch in batches:
        changes.facts += _health_facts(batch)
    for batch in concerned:
        known = active[batch.state.plugin]
        await _PluginIncidents(tx, batch, known, changes, healthy_windows, reopening_rules).apply()
    if changes.opened:
        pairs = [(incident.package, incident.type) for incident, _ in changes.opened]
        changes.facts += await storms.begin(tx, pairs, rules)
    return changes


@dataclass(slots=True)
class _PluginIncidents:
    """One plugin's incidents while its beats are applied to them."""

    tx: Transaction
    batch: PluginBatch
    active: dict[str, Incident]
    changes: Changes
    healthy_windows: int
    rules: reopening.Rules
    changed: dict[str, Incident] = field(default_factory=dict)

    async def apply(self) -> None:
        ended = False
        for seen in self.batch.observations:
            for finding in seen.findings:
                await self._apply_finding(finding, seen)
            for type_, well in seen.wellness.items():
                incident = self.active.get(type_)
                if incident is not None:
                    ended |= self._apply_wellness(incident, well)
        for incident in self.changed.values():
            await store.save(self.tx, incident)
        await self._store_types(ended)

    async def _apply_finding(self, finding: Finding, seen: Observation) -> None:
        known = self.active.get(finding.type)
        if known is not None and known.ill:
            evidence = await self._evidence(finding, seen)
            # The generation its window began under: the beat itself may be the first of the next.
            generation = seen.window.generation
            self._move(
                known,
                incident_lifecycle.worsened(known, finding.severity, evidence, self.tx.now, generation=generation),
            )
        elif finding.type != config_drift.TYPE or not self._config_fix_under_way():
            known = known or await store.last_of(self.tx, self.batch.state.plugin, finding.type)
            if known is None or not reopening.continues(known, self.tx.now, self.rules):
                await self._open(finding, seen)
            else:
                await self._reopen(known, finding, seen)

    def _config_fix_under_way(self) -> bool:
        """Whether an attempt for something else brings a configuration anyway."""
        return any(one.attempt and one.action == ACTION_CONFIG_FIX for one in self.active.values())

    def _apply_wellness(self, incident: Incident, well: bool) -> bool:
        """Whether the incident ended."""
        if well:
            after = incident_lifecycle.improved(incident, self.tx.now, enough=self.healthy_windows)
        else:
            after = incident_lifecycle.worsened(incident, incident.severity, incident.evidence, self.tx.now)
        self._move(incident, after)
        if not after.incident.active:
            del self.active[incident.type]
        return not after.incident.ill

    def _move(self, before: Incident, after: Transition) -> None:
        if after.incident == before:
            return
        self.changed[before.id] = after.incident
        self.active[before.type] = after.incident
        self.changes.facts += [(event, before.traceparent) for event in wire.facts(after)]

    async def _reopen(self, known: Incident, finding: Finding, seen: Observation) -> None:
        storm = await storms.ongoing_unlocked(self.tx, known.package, known.type)
        again = Recurrence(
            finding.severity,
            await self._evidence(finding, seen),
            datetime.fromtimestamp(seen.received, UTC),
            seen.beat.release,
            seen.beat.generation,
            # What was counted under the generation before says nothing of this one.
            changing=seen.window.generation != seen.beat.generation,
        )
        after = reopening.came_back(reopening.during(known, storm), again, self.tx.now, self.rules)
        self._move(known, after)
        self.changes.opened.append((after.incident, seen.beat.sequence))

    async def _open(self, finding: Finding, seen: Observation) -> None:
        identity, trace = self.batch.identity, self.batch.traces[finding.type]
        opened = incident_lifecycle.opened(
            new_incident(
                new_id(self.tx.now),
                finding,
                self.tx.now,
                datetime.fromtimestamp(seen.received, UTC),
                act_within=self.rules.act_within,
                plugin=identity.plugin,
                merchant=identity.merchant,
                package=identity.package,
                evidence=await self._evidence(finding, seen),
                release=seen.beat.release,
                generation=seen.beat.generation,
                trace_id=trace_id(trace),
                traceparent=trace,
            )
        )
        if await store.insert(self.tx, opened.incident):
            self.active[finding.type] = opened.incident
            self.changes.opened.append((opened.incident, seen.beat.sequence))
            self.changes.facts += [(event, trace) for event in wire.facts(opened)]

    async def _evidence(self, finding: Finding, seen: Observation) -> Evidence:
        known = self.active.get(finding.type)
        if known is not None and known.ill and not known.is_news(finding.severity, finding.summary):
            return known.evidence
        environment, config_digest = await plugins.environment(self.tx, self.batch.state.plugin)
        return Evidence(
            summary=finding.summary,
            figures=dict(finding.figures),
            failing_inputs=seen.beat.failing_inputs or (known.evidence.failing_inputs if known else ()),
            environment=environment,
            config_digest=seen.beat.config_digest or config_digest,
        )

    async def _store_types(self, ended: bool) -> None:
        state = self.batch.state
        types = detectors.bits(name for name, incident in self.active.items() if incident.ill)
        if not ended and types == state.open_types:
            return
        await plugin_state.set_types(self.tx, state.plugin, types, ended=ended)
        self.changes.changed_states.add(state.plugin)


def _health_facts(batch: PluginBatch) -> list[tuple[Event, str]]:
    identity, facts = batch.identity, list[tuple[Event, str]]()
    for seen in batch.observations:
        before, beat = seen.health_before, seen.beat
        if before is None or (before is Health.UNSPECIFIED and beat.health is Health.HEALTHY):
            continue
        event = plugin_wire.health_changed(
            identity.plugin, identity.merchant, before, beat.health, beat.release, beat.generation
        )
        facts.append((event, ""))
    return facts
