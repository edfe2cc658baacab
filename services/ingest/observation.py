"""The first half of a beat's way: the difference to what was known becomes a window of the plugin's state.

Rule: counters are cumulative since boot, so only differences count; a beat that came before is acknowledged and changes
nothing; a counter that shrinks within a boot is a mistake of the sender. A difference belongs to the generation that
ran when it began. A boot id that comes back after another one means that two agents live with one identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from services.ingest.anomaly.peers import Peers
from services.ingest.beat import Beat, ClientFigures, Health
from services.ingest.finding import Finding
from services.ingest.plugin_state import SETTLED, PluginState
from services.ingest.windows import DAY, SLACK, Window, append, newest_first

BOOTS = 4
UNCOUNTED = ClientFigures()


class BeatOutcome(Enum):
    """What becomes of a beat."""

    APPLIED = "applied"
    REPEATED = "repeated"
    SHRUNK = "shrunk"
    CLONED = "cloned"


@dataclass(slots=True)
class Observation:
    """One beat counted into the state of its plugin, and what the detectors make of it (`findings`, `wellness`).

    `received` and the times of the state are Unix seconds of ingest's clock. `eventful` is False when neither the
    window nor anything before it can hold what a threshold would find.
    """

    state: PluginState
    beat: Beat
    package: str
    received: float
    window: Window
    peers: Peers
    client_figures: ClientFigures
    eventful: bool
    health_before: Health | None
    findings: list[Finding] = field(default_factory=list)
    # By type of an open incident: whether this beat speaks for (True) or against (False) being healed of it.
    wellness: dict[str, bool] = field(default_factory=dict)
    _recent: list[Window] | None = None

    @property
    def recent(self) -> list[Window]:
        """The windows that count, newest first."""
        if self._recent is None:
            state = self.state
            self._recent = recent(newest_first(state.windows), state.count_from_time, state.last_beat_time)
        return self._recent

    @property
    def means_something(self) -> bool:
        """Whether it opens, changes or eases an incident, or the health changed."""
        return bool(self.findings or self.wellness or self.health_before is not None)


def classify(state: PluginState, beat: Beat) -> tuple[BeatOutcome, str]:
    """What becomes of a beat, and which counter shrank."""
    same_boot = bool(state.boot_ids) and state.boot_ids[0] == beat.boot_id
    if same_boot and beat.sequence <= state.sequence:
        return BeatOutcome.REPEATED, ""
    if not same_boot and beat.boot_id in state.boot_ids:
        return BeatOutcome.CLONED, ""
    if same_boot and (shrunk := _shrunk(state, beat)):
        return BeatOutcome.SHRUNK, shrunk
    return BeatOutcome.APPLIED, ""


def observe(
    state: PluginState, beat: Beat, received: float, *, package: str, peers: Peers, polling: bool = False
) -> Observation:
    """Counts an applied beat into the state (changed in place: forget it when it cannot be stored)."""
    window = _difference(state, beat, max(received, state.last_beat_time))
    before, figures = state.health, beat.client_figures
    _advance(state, beat, window, polling=polling)
    eventful = (
        not window.quiet
        or figures is not None
        or bool(state.open_types)
        or beat.health is Health.DOWN
        or state.quiet_windows <= SETTLED
    )
    return Observation(
        state,
        beat,
        package,
        received,
        window,
        peers,
        UNCOUNTED if figures is None else _since_change(state, figures),
        eventful,
        None if before is beat.health else before,
    )


def recent(windows: Iterable[Window], since: float, at: float) -> list[Window]:
    """Of windows (newest first) those of the last day that began after `since`, all of one generation.

    What another build did says nothing of this one.
    """
    found: list[Window] = []
    for window in windows:
        if window.start < since - SLACK or window.end < at - DAY:
            break
        if found and window.generation != found[0].generation:
            break
        found.append(window)
    return found


def _since_change(state: PluginState, figures: ClientFigures) -> ClientFigures:
    """A level over 24 hours still holds what came before the last change; only what was added counts."""
    errors = figures.errors_last_24h
    if errors is None:
        return figures
    state.errors_last_24h = errors
    state.errors_last_24h_base = min(state.errors_last_24h_base, errors)
    return ClientFigures(errors - state.errors_last_24h_base, figures.webhook_fail_rate)


def _difference(state: PluginState, beat: Beat, at: float) -> Window:
    first = not state.beats
    base = state if state.boot_ids and state.boot_ids[0] == beat.boot_id else _NOTHING
    # Since boot, when a new boot's first beat arrives; nothing is known of how long that was.
    duration = 0.0 if first else max(0.0, at - state.last_beat_time)
    return Window(
        at,
        duration,
        beat.errors - base.errors,
        beat.webhook_attempts - base.webhook_attempts,
        beat.webhook_failures - base.webhook_failures,
        beat.signature_failures - base.signature_failures,
        1,
        beat.generation if first else state.generation,
    )


def _advance(state: PluginState, beat: Beat, window: Window, *, polling: bool) -> None:
    if not state.boot_ids or state.boot_ids[0] != beat.boot_id:
        state.boot_ids = (beat.boot_id, *state.boot_ids)[:BOOTS]
    state.sequence = beat.sequence
    state.errors, state.webhook_attempts = beat.errors, beat.webhook_attempts
    state.webhook_failures, state.signature_failures = beat.webhook_failures, beat.signature_failures
    state.last_beat_time, state.beats = window.end, state.beats + 1
    state.health, state.polling, state.away = beat.health, polling, False
    state.release, state.generation, state.digest = beat.release, beat.generation, beat.digest
    state.windows = append(state.windows, window)
    state.quiet_windows = state.quiet_windows + bool(window.attempts) if window.quiet else 0


def _shrunk(state: PluginState, beat: Beat) -> str:
    if beat.errors < state.errors:
        return "errors"
    if beat.webhook_attempts < state.webhook_attempts:
        return "webhook_attempts"
    if beat.webhook_failures < state.webhook_failures:
        return "webhook_failures"
    return "signature_failures" if beat.signature_failures < state.signature_failures else ""


_NOTHING = PluginState("")
