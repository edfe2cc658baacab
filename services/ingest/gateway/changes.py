"""What beats do to incidents, within the transaction that stores the beats.

Rule: a pulse row is written first; only where that succeeded do its anomalies open incidents and its healthy windows
close them. The types noted in the pulse afterwards are those of the active rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import counter, new_traceparent, trace_id
from prunella.v1.events_pb2 import ACTION_CONFIG_FIX, Event
from services.ingest import detection, incidents
from services.ingest.detection import Anomaly, Health
from services.ingest.gateway import storms
from services.ingest.incidents import Evidence, Incident, State, Step
from services.ingest.store import incidents as store
from services.ingest.store import plugins, pulses
from services.ingest.store.plugins import Identity, Traits
from services.ingest.storm import Rules
from services.ingest.telemetry import Beat, Heard, Pulse
from services.ingest.wire import incidents as wire
from services.ingest.wire import plugins as plugin_wire

OPENED = counter("incidents_opened_total", "Incidents that were opened, by type", ("type",))


@dataclass(slots=True)
class Said:
    """One beat that was applied to a pulse, with what it means."""

    beat: Beat
    heard: Heard
    received: float


@dataclass(slots=True)
class Work:
    """A plugin's pulse after the beats of one batch, and those beats that mean something."""

    identity: Identity
    pulse: Pulse
    said: list[Said] = field(default_factory=list)
    # Traces of incidents this work may open, by type; made once, so that a repeated transaction keeps them.
    traces: dict[str, str] = field(default_factory=dict)
    # What rarely changes, as the newest beat that says something of it has it; empty when none does.
    environment: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    config_digest: str = ""

    def tell_traits(self, beat: Beat) -> None:
        """Keeps what a beat says of the plugin itself."""
        self.environment = beat.environment or self.environment
        self.numbers = beat.numbers or self.numbers
        self.config_digest = beat.config_digest or self.config_digest

    def new_traits(self) -> Traits | None:
        """What is to be written of them; None when it is what was written last."""
        if not (self.environment or self.numbers or self.config_digest):
            return None
        known = hash((self.environment, self.numbers, self.config_digest))
        if known == self.pulse.traits:
            return None
        self.pulse.traits = known
        environment = json.dumps(dict(self.environment)) if self.environment else ""
        numbers = json.dumps(dict(self.numbers)) if self.numbers else ""
        return Traits(self.pulse.plugin, environment, numbers, self.config_digest)

    def note(self, said: Said) -> None:
        """Keeps a beat if it opens, changes or eases something."""
        heard = said.heard
        if heard.anomalies or heard.wellness or heard.health_before is not None:
            self.said.append(said)
        for anomaly in heard.anomalies:
            self.traces.setdefault(anomaly.type, new_traceparent())
            self.pulse.open_types |= detection.BIT[anomaly.type]


@dataclass(slots=True)
class Outcome:
    """What a transaction did besides storing pulses: facts with their traces, incidents it opened, pulses it moved."""

    told: list[tuple[Event, str]] = field(default_factory=list)
    opened: list[tuple[Incident, Said]] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)


async def apply(tx: Transaction, works: Sequence[Work], *, act_by: float, enough: int, rules: Rules) -> Outcome:
    """Moves incidents as the beats say, and begins the storms they make. `act_by` in seconds, `enough` healthy windows
    close.
    """
    outcome = Outcome()
    concerned = [work for work in works if any(said.heard.anomalies or said.heard.wellness for said in work.said)]
    active: dict[str, dict[str, Incident]] = {work.pulse.plugin: {} for work in concerned}
    if concerned:
        for incident in await store.active_of(tx, sorted(active)):
            active[incident.plugin][incident.type] = incident
    for work in works:
        _tell_health(outcome, work)
    for work in concerned:
        await _One(tx, work, active[work.pulse.plugin], outcome, act_by, enough).apply()
    if outcome.opened:
        pairs = [(incident.package, incident.type) for incident, _ in outcome.opened]
        outcome.told += await storms.look(tx, pairs, rules)
    return outcome


@dataclass(slots=True)
class _One:
    """One plugin's incidents while its beats are applied to them."""

    tx: Transaction
    work: Work
    active: dict[str, Incident]
    outcome: Outcome
    act_by: float
    enough: int

    async def apply(self) -> None:
        changed: dict[str, Incident] = {}
        ended = False
        for said in self.work.said:
            sick = {anomaly.type for anomaly in said.heard.anomalies}
            for anomaly in said.heard.anomalies:
                known = self.active.get(anomaly.type)
                if known is None and anomaly.type == detection.CONFIG_DRIFT and self._mending():
                    continue
                if known is None:
                    await self._open(anomaly, said)
                else:
                    evidence = await self._evidence(anomaly, said)
                    # The generation its window began under: the beat itself may be the first of the next.
                    window = said.heard.window
                    step = incidents.worsened(
                        known,
                        anomaly.severity,
                        evidence,
                        self.tx.now,
                        generation=window.generation if window else said.beat.generation,
                    )
                    self._moved(known, step, changed)
            for name, well in said.heard.wellness.items():
                incident = self.active.get(name)
                if incident is not None and name not in sick:
                    ended |= self._ease(incident, well, changed)
        for incident in changed.values():
            await store.save(self.tx, incident)
        await self._note_types(ended)

    def _mending(self) -> bool:
        """Whether an attempt for something else brings a configuration anyway."""
        return any(one.attempt and one.action == ACTION_CONFIG_FIX for one in self.active.values())

    def _ease(self, incident: Incident, well: bool, changed: dict[str, Incident]) -> bool:
        if well:
            step = incidents.eased(incident, 1, self.tx.now, enough=self.enough)
        else:
            step = incidents.worsened(incident, incident.severity, incident.evidence, self.tx.now)
        self._moved(incident, step, changed)
        if step.incident.active:
            return False
        del self.active[incident.type]
        return True

    def _moved(self, before: Incident, step: Step, changed: dict[str, Incident]) -> None:
        if step.incident == before:
            return
        changed[before.id] = step.incident
        self.active[before.type] = step.incident
        self.outcome.told += [(event, before.traceparent) for event in wire.facts(step)]

    async def _open(self, anomaly: Anomaly, said: Said) -> None:
        work, now = self.work, self.tx.now
        trace = work.traces[anomaly.type]
        incident = Incident(
            id=new_id(now),
            plugin=work.pulse.plugin,
            merchant=work.identity.merchant,
            package=work.identity.package,
            type=anomaly.type,
            severity=anomaly.severity,
            state=State.OPEN,
            round=1,
            open_time=now,
            first_bad_beat_time=datetime.fromtimestamp(said.received, UTC),
            update_time=now,
            act_by=now + timedelta(seconds=self.act_by),
            evidence=await self._evidence(anomaly, said),
            release=said.beat.release,
            generation=said.beat.generation,
            trace_id=trace_id(trace),
            traceparent=trace,
        )
        step = incidents.opened(incident)
        if await store.insert(self.tx, step.incident):
            self.active[anomaly.type] = step.incident
            self.outcome.opened.append((step.incident, said))
            self.outcome.told += [(event, trace) for event in wire.facts(step)]

    async def _evidence(self, anomaly: Anomaly, said: Said) -> Evidence:
        known = self.active.get(anomaly.type)
        if known is not None and anomaly.severity <= known.severity:
            return known.evidence
        environment, config_digest = await plugins.place(self.tx, self.work.pulse.plugin)
        return Evidence(
            summary=anomaly.summary,
            figures=dict(anomaly.figures),
            failing_inputs=said.beat.failing_inputs or (known.evidence.failing_inputs if known else ()),
            environment=environment,
            config_digest=said.beat.config_digest or config_digest,
        )

    async def _note_types(self, ended: bool) -> None:
        pulse = self.work.pulse
        noted = detection.bits(self.active)
        if not ended and noted == pulse.open_types:
            return
        await pulses.note_types(self.tx, pulse.plugin, noted, ended=ended)
        self.outcome.moved.add(pulse.plugin)


def _tell_health(outcome: Outcome, work: Work) -> None:
    for said in work.said:
        before = said.heard.health_before
        if before is None or (before is Health.UNSPECIFIED and said.beat.health is Health.HEALTHY):
            continue
        identity, beat = work.identity, said.beat
        event = plugin_wire.health_changed(
            identity.plugin, identity.merchant, before, beat.health, beat.release, beat.generation
        )
        outcome.told.append((event, ""))
