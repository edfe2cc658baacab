"""The first half of a beat's way: the difference to what was known becomes a window of the plugin's state.

Rule: counters are cumulative since boot, so only differences count; a beat that came before is acknowledged and changes
nothing; a counter that shrinks within a boot is a mistake of the sender. A difference belongs to the generation that
ran when it began. Of what a boot counted while another one was current nothing is known (`boots`). A beat without a
boot is one more in the order in which ingest got it, and touches no boot and no counter. Time is ingest's own; when its
clock was set back, what was noted in the time ahead holds from now on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from services.ingest import boots, rate_reports
from services.ingest.anomaly.peers import Peers
from services.ingest.beat import Beat, ClientFigures, Health
from services.ingest.boots import Arrival, Boot, BootOutcome, Boots
from services.ingest.finding import Finding
from services.ingest.liveness import SET_BACK
from services.ingest.plugin_state import SETTLED, PluginState
from services.ingest.windows import DAY, SLACK, Window, append, newest_first

UNCOUNTED = ClientFigures()
# Seconds within which two times of an agent are one: it is kept as a difference to ours.
SAME_TIME = 0.001


@dataclass(frozen=True, slots=True)
class Limits:
    """`longest_delay`: seconds a beat may be on its way; `rate_reports`: bare rates in a row that are evidence."""

    longest_delay: float = 60.0
    rate_reports: int = 3


LIMITS = Limits()


class BeatOutcome(Enum):
    """What becomes of a beat."""

    APPLIED = "applied"
    REPEATED = "repeated"
    LATE = "late"
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
    # The lowest of as many bare webhook_fail_rates in a row as are evidence; None while there are too few.
    lowest_rate: float | None = None
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


def classify(
    state: PluginState, beat: Beat, received: float, *, epoch: int = 0, limits: Limits = LIMITS
) -> tuple[BeatOutcome, str]:
    """What becomes of a beat, and which counter shrank; the boots of the state are brought up to date in place.

    `epoch` is that of the beat's session, 0 without one.
    """
    if not beat.boot_id:
        return BeatOutcome.APPLIED, ""
    if state.boot_ids and state.boot_ids[0] == beat.boot_id:
        if beat.sequence <= state.sequence:
            return BeatOutcome.REPEATED, ""
        if shrunk := _shrunk(state, beat):
            return BeatOutcome.SHRUNK, shrunk
        state.boot_epoch = state.session_epoch
        state.boot_time = min(state.boot_time, received)
        return BeatOutcome.APPLIED, ""
    arrival = Arrival(beat.boot_id, beat.sequence, received, epoch, state.session_epoch)
    outcome, after = boots.receive(_boots(state), arrival, limits.longest_delay)
    if outcome is BootOutcome.REPEATED:
        return BeatOutcome.REPEATED, ""
    if outcome is BootOutcome.CLONED:
        return BeatOutcome.CLONED, ""
    _keep(state, after)
    if outcome is BootOutcome.LATE:
        return BeatOutcome.LATE, ""
    if outcome is BootOutcome.NEW:
        state.errors = state.webhook_attempts = state.webhook_failures = state.signature_failures = 0
    else:
        _take_over(state, beat)
    return BeatOutcome.APPLIED, ""


def observe(
    state: PluginState,
    beat: Beat,
    received: float,
    *,
    package: str,
    peers: Peers,
    polling: bool = False,
    limits: Limits = LIMITS,
) -> Observation:
    """Counts an applied beat into the state (changed in place: forget it when it cannot be stored)."""
    _return_to(state, received)
    window = _difference(state, beat, max(received, state.last_beat_time))
    before, figures = state.health, beat.client_figures
    lowest = _lowest_rate(state, beat, window, limits.rate_reports)
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
        lowest,
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


def _lowest_rate(state: PluginState, beat: Beat, window: Window, count: int) -> float | None:
    if beat.generation != state.generation:
        state.reported_rates = b""
    rate = beat.client_figures.webhook_fail_rate if beat.client_figures else None
    if rate is None:
        return None
    # The client tries again with the time it named before: one report.
    named = None if state.clock_skew is None else state.last_beat_time + state.clock_skew
    again = beat.time is not None and named is not None and abs(beat.time - named) < SAME_TIME
    since = max(state.count_from_time, window.end - DAY)
    state.reported_rates = rate_reports.append(state.reported_rates, window.end, rate, since, count, again=again)
    return rate_reports.lowest(state.reported_rates, count)


def _return_to(state: PluginState, received: float) -> None:
    if received < state.last_beat_time - SET_BACK:
        state.last_beat_time = received
        state.count_from_time = min(state.count_from_time, received)


def _difference(state: PluginState, beat: Beat, at: float) -> Window:
    first = not state.beats
    # Of the first beat's counters nobody knows how long they took.
    duration = 0.0 if first else max(0.0, at - state.last_beat_time)
    generation = beat.generation if first else state.generation
    if not beat.boot_id:
        return Window(at, duration, 0, 0, 0, 0, 1, generation)
    return Window(
        at,
        duration,
        beat.errors - state.errors,
        beat.webhook_attempts - state.webhook_attempts,
        beat.webhook_failures - state.webhook_failures,
        beat.signature_failures - state.signature_failures,
        1,
        generation,
    )


def _advance(state: PluginState, beat: Beat, window: Window, *, polling: bool) -> None:
    if beat.boot_id:
        state.sequence = beat.sequence
        _take_over(state, beat)
    state.last_beat_time, state.beats = window.end, state.beats + 1
    if beat.time is not None:
        state.clock_skew = beat.time - window.end
    state.health, state.polling, state.away = beat.health, polling, False
    state.release, state.generation, state.digest = beat.release, beat.generation, beat.digest
    state.windows = append(state.windows, window)
    state.quiet_windows = state.quiet_windows + bool(window.attempts) if window.quiet else 0


def _take_over(state: PluginState, beat: Beat) -> None:
    state.errors, state.webhook_attempts = beat.errors, beat.webhook_attempts
    state.webhook_failures, state.signature_failures = beat.webhook_failures, beat.signature_failures


def _boots(state: PluginState) -> Boots:
    sequences = (state.sequence, *state.former_sequences)
    known = tuple(Boot(boot, sequence) for boot, sequence in zip(state.boot_ids, sequences, strict=False))
    return Boots(known, state.boot_time, state.boot_epoch, state.boot_returns)


def _keep(state: PluginState, known: Boots) -> None:
    state.boot_ids = tuple(boot.id for boot in known.known)
    state.sequence, *former = (boot.sequence for boot in known.known)
    state.former_sequences = tuple(former)
    state.boot_time, state.boot_epoch = known.take_over_time, known.epoch
    state.boot_returns = known.returns


def _shrunk(state: PluginState, beat: Beat) -> str:
    if beat.errors < state.errors:
        return "errors"
    if beat.webhook_attempts < state.webhook_attempts:
        return "webhook_attempts"
    if beat.webhook_failures < state.webhook_failures:
        return "webhook_failures"
    return "signature_failures" if beat.signature_failures < state.signature_failures else ""
