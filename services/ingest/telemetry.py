"""What a beat adds to what is known of a plugin.

Rule: counters are cumulative since boot, so only differences count; a beat that was heard before is acknowledged and
changes nothing; a counter that shrinks within a boot is a mistake of the sender. A difference belongs to the generation
that ran when it began. A boot id that comes back after another one means that two agents live with one identity. A
configuration that differs from the expected one has drifted, unless a command or a trial may be about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from services.ingest import detection
from services.ingest.detection import CONFIG_DRIFT, Anomaly, Health, Plain
from services.ingest.windows import Window, append, newest_first

BOOTS = 4
# Quiet windows with attempts after which earlier failures can no longer make a rate.
CALM = 8

# Seconds. Beats that come closer were kept while the plane was away (or tell a change): they speak of the past, and a
# plugin that was well then need not be well now. What they accuse of still counts.
SHORTEST_WELL = 0.4


@dataclass(slots=True)
class Beat:
    """One signal of life, checked. Environment and numbers are empty when the beat says nothing of them."""

    boot: str
    sequence: int
    errors: int
    attempts: int
    failures: int
    signatures: int
    release: str
    generation: int
    digest: str
    health: Health
    plain: Plain | None = None
    config_digest: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    failing_inputs: tuple[str, ...] = ()
    sent_at: float = 0.0


@dataclass(slots=True)
class Pulse:
    """What is known of a plugin from its beats; times in Unix seconds of ingest's clock."""

    plugin: str
    version: int = 0
    active: bool = True
    epoch: int = 0
    boots: tuple[str, ...] = ()
    sequence: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    signatures: int = 0
    heard: float = 0.0
    beats: int = 0
    health: Health = Health.UNSPECIFIED
    release: str = ""
    generation: int = 0
    digest: str = ""
    open_types: int = 0
    watch_from: float = 0.0
    # errors_last_24h as last reported, and as it stood at the last apply or incident close.
    plain_last: int = 0
    plain_errors: int = 0
    polls: bool = False
    away: bool = False
    # There may be commands to hear of, or a final word is still to come.
    waiting: bool = False
    windows: bytes = b""
    # Digest of the configuration it should have; empty when none is known.
    expected_config: str = ""
    # Its detector, with what was counted when that listened last.
    sense: bytes = b""
    # Not stored: quiet windows with attempts since the last one in which something went wrong.
    calm: int = 0
    # Not stored: a hash of the rarely changing things that were written last.
    traits: int = 0
    # Not stored: when its detector listened last, and whether that is still to be written.
    listened: float = 0.0
    unsaved: bool = False


class Hearing(Enum):
    """What became of a beat."""

    APPLIED = "applied"
    REPEATED = "repeated"
    SHRUNK = "shrunk"
    CLONED = "cloned"


@dataclass(slots=True)
class Heard:
    """The outcome of one beat; `wrong` names a field. Anomalies and wellness only when there is something to say."""

    hearing: Hearing
    wrong: str = ""
    window: Window | None = None
    anomalies: list[Anomaly] = field(default_factory=list)
    wellness: dict[str, bool] = field(default_factory=dict)
    health_before: Health | None = None


_REPEATED = Heard(Hearing.REPEATED)
_CLONED = Heard(Hearing.CLONED)


def hear(pulse: Pulse, beat: Beat, at: float, *, polls: bool = False) -> Heard:
    """Adds a beat to the pulse (changed in place: forget it when it cannot be stored) and says what it means."""
    first = not pulse.beats
    same_boot = bool(pulse.boots) and pulse.boots[0] == beat.boot
    if same_boot and beat.sequence <= pulse.sequence:
        return _REPEATED
    if not same_boot and beat.boot in pulse.boots:
        return _CLONED
    if same_boot and (shrunk := _shrunk(pulse, beat)):
        return Heard(Hearing.SHRUNK, shrunk)
    window = _difference(pulse, beat, at, same_boot=same_boot, first=first)
    before = pulse.health
    _advance(pulse, beat, at, window, polls=polls)
    heard = Heard(Hearing.APPLIED, window=window)
    if before is not beat.health:
        heard.health_before = before
    plain = beat.plain
    drifts = _drifts(pulse, beat)
    if (
        window.quiet
        and plain is None
        and not pulse.open_types
        and not drifts
        and beat.health is not Health.DOWN
        and pulse.calm > CALM
    ):
        return heard
    _consider(pulse, heard, window, plain, at)
    if drifts:
        heard.anomalies.append(detection.drifted(pulse.expected_config, beat.config_digest))
    elif pulse.open_types & detection.BIT[CONFIG_DRIFT] and _agrees(pulse, beat) and window.duration >= SHORTEST_WELL:
        heard.wellness[CONFIG_DRIFT] = True
    return heard


def _agrees(pulse: Pulse, beat: Beat) -> bool:
    return bool(beat.config_digest) and not pulse.waiting


def _drifts(pulse: Pulse, beat: Beat) -> bool:
    found, expected = beat.config_digest, pulse.expected_config
    return found != expected and bool(found and expected) and not pulse.waiting


def _consider(pulse: Pulse, heard: Heard, window: Window, plain: Plain | None, at: float) -> None:
    if plain is not None and plain.errors is not None:
        # A level over 24 hours still holds what came before the last change; only what was added counts.
        pulse.plain_last = plain.errors
        pulse.plain_errors = min(pulse.plain_errors, plain.errors)
        plain = Plain(plain.errors - pulse.plain_errors, plain.rate)
    plain = plain or Plain()
    heard.anomalies = detection.judge(newest_first(pulse.windows), pulse.watch_from, at, pulse.health, plain)
    if not pulse.open_types:
        return
    since = detection.recent(newest_first(pulse.windows), pulse.watch_from, at) or [window]
    for name in detection.types(pulse.open_types):
        verdict = detection.well(name, since, pulse.health, plain)
        if verdict and window.duration < SHORTEST_WELL:
            continue
        if verdict is not None:
            heard.wellness[name] = verdict


def _difference(pulse: Pulse, beat: Beat, at: float, *, same_boot: bool, first: bool) -> Window:
    base = pulse if same_boot else _NOTHING
    # Since boot, when a new boot's first beat arrives; nothing is known of how long that was.
    duration = 0.0 if first else max(0.0, at - pulse.heard)
    return Window(
        at,
        duration,
        beat.errors - base.errors,
        beat.attempts - base.attempts,
        beat.failures - base.failures,
        beat.signatures - base.signatures,
        1,
        beat.generation if first else pulse.generation,
    )


def _advance(pulse: Pulse, beat: Beat, at: float, window: Window, *, polls: bool) -> None:
    if not pulse.boots or pulse.boots[0] != beat.boot:
        pulse.boots = (beat.boot, *pulse.boots)[:BOOTS]
    pulse.sequence = beat.sequence
    pulse.errors, pulse.attempts = beat.errors, beat.attempts
    pulse.failures, pulse.signatures = beat.failures, beat.signatures
    pulse.heard, pulse.beats = at, pulse.beats + 1
    pulse.health, pulse.polls, pulse.away = beat.health, polls, False
    pulse.release, pulse.generation, pulse.digest = beat.release, beat.generation, beat.digest
    pulse.windows = append(pulse.windows, window)
    pulse.calm = pulse.calm + bool(window.attempts) if window.quiet else 0


def _shrunk(pulse: Pulse, beat: Beat) -> str:
    if beat.errors < pulse.errors:
        return "errors"
    if beat.attempts < pulse.attempts:
        return "webhook_attempts"
    if beat.failures < pulse.failures:
        return "webhook_failures"
    return "signature_failures" if beat.signatures < pulse.signatures else ""


def calm(windows: bytes) -> int:
    """How many quiet windows with attempts came since something went wrong."""
    count = 0
    for window in newest_first(windows):
        if not window.quiet:
            return count
        count += bool(window.attempts)
        if count > CALM:
            return count
    return CALM + 1


_NOTHING = Pulse("")
