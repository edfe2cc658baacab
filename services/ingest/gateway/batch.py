"""A batch of beats in one pass: difference → window → detectors → findings, one beat after the other.

Rule: every beat is counted into the state of its plugin (`observation`) and judged by every detector that is due
(`detectors`). Nothing here waits or writes; what is found is applied to incidents when the states are stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from libs.common.errors import Denied, Invalid, NotFound, Problem, Stale
from libs.common.telemetry import new_traceparent
from services.ingest import detectors
from services.ingest.anomaly.peers import Peers
from services.ingest.beat import Beat
from services.ingest.observation import BeatOutcome, Limits, Observation, classify, observe
from services.ingest.plugin_state import PluginState
from services.ingest.store.plugins import Attributes, Identity


@dataclass(slots=True)
class Entry:
    """A beat on its way; `done` gets None when it is durable, or why it never will be. `epoch` 0: no session.

    `commands_pending` says afterwards whether there may be commands for the plugin, `late` that it is a former boot's.
    """

    identity: Identity
    beat: Beat
    epoch: int
    received: float
    done: Callable[[Problem | None], None]
    tries: int = 0
    commands_pending: bool = False
    late: bool = False


@dataclass(slots=True)
class PluginBatch:
    """A plugin's state after the beats of one batch, and the observations that mean something."""

    identity: Identity
    state: PluginState
    observations: list[Observation] = field(default_factory=list)
    # Traces of incidents this batch may open, by type; made once, so that a repeated transaction has the same.
    traces: dict[str, str] = field(default_factory=dict)
    # As the newest beat that reports them has them; empty when none does.
    environment: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    config_digest: str = ""

    def add(self, seen: Observation) -> None:
        """Adds a beat that was judged."""
        beat = seen.beat
        self.environment = beat.environment or self.environment
        self.numbers = beat.numbers or self.numbers
        self.config_digest = beat.config_digest or self.config_digest
        if seen.means_something:
            self.observations.append(seen)
        for finding in seen.findings:
            self.traces.setdefault(finding.type, new_traceparent())
            self.state.open_types |= detectors.BITS[finding.type]

    def new_attributes(self) -> Attributes | None:
        """What is to be written of what rarely changes; None when it is what was written last."""
        if not (self.environment or self.numbers or self.config_digest):
            return None
        known = hash((self.environment, self.numbers, self.config_digest))
        if known == self.state.attributes_hash:
            return None
        self.state.attributes_hash = known
        environment = json.dumps(dict(self.environment)) if self.environment else ""
        numbers = json.dumps(dict(self.numbers)) if self.numbers else ""
        return Attributes(self.state.plugin, environment, numbers, self.config_digest)


@dataclass(slots=True)
class Batch:
    """The plugins of a batch that is to be stored, the answer to every entry once it is, and the clones among them.

    Of a clone the boot that it came between is said as well.
    """

    plugins: dict[str, PluginBatch] = field(default_factory=dict)
    answers: list[tuple[Entry, Problem | None]] = field(default_factory=list)
    cloned: list[tuple[Entry, str]] = field(default_factory=list)


def evaluate(entries: Iterable[Entry], states: Mapping[str, PluginState], peers: Peers, limits: Limits) -> Batch:
    """Counts and judges every beat; the states are changed in place."""
    batch = Batch()
    for entry in entries:
        plugin = entry.identity.plugin
        state = states.get(plugin)
        problem = _barred(state, entry)
        if problem is None and state is not None:
            outcome, shrunk = classify(state, entry.beat, entry.received, epoch=entry.epoch, limits=limits)
            entry.late = outcome is BeatOutcome.LATE
            if outcome is BeatOutcome.APPLIED:
                _apply(batch, entry, state, peers, limits)
            elif entry.late:
                # Nothing comes of it but that it is known.
                _stored_with(batch, entry, state)
            elif outcome is BeatOutcome.CLONED:
                batch.cloned.append((entry, state.boot_ids[0]))
            problem = _refusal(outcome, shrunk)
        batch.answers.append((entry, problem))
    return batch


def _apply(batch: Batch, entry: Entry, state: PluginState, peers: Peers, limits: Limits) -> None:
    package, polling = entry.identity.package, not entry.epoch
    seen = observe(state, entry.beat, entry.received, package=package, peers=peers, polling=polling, limits=limits)
    detectors.detect(seen)
    _stored_with(batch, entry, state).add(seen)


def _stored_with(batch: Batch, entry: Entry, state: PluginState) -> PluginBatch:
    return batch.plugins.setdefault(entry.identity.plugin, PluginBatch(entry.identity, state))


def _barred(state: PluginState | None, entry: Entry) -> Problem | None:
    if state is None:
        return NotFound("there is no such plugin", reason="PLUGIN_UNKNOWN", plugin=entry.identity.plugin)
    if not state.active:
        return Denied("the plugin is barred; it takes a person to change that", reason="PLUGIN_BARRED")
    if entry.epoch and state.session_epoch > entry.epoch:
        return Stale("a newer session of this plugin has begun", reason="SESSION_SUPERSEDED")
    return None


def _refusal(outcome: BeatOutcome, field: str) -> Problem | None:
    if outcome is BeatOutcome.SHRUNK:
        return Invalid(
            f"{field} must not shrink within a boot; send counts since boot, or a new boot_id after a restart",
            reason="COUNTER_SHRANK",
            field=field,
        )
    if outcome is BeatOutcome.CLONED:
        return Denied(
            "two living agents use this identity; it is quarantined until a person decides", reason="PLUGIN_QUARANTINED"
        )
    return None
