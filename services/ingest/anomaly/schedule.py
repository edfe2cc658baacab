"""When a plugin is sampled for its baseline, and what a sample holds.

Rule: most beats say nothing new, so samples are seldom: a quarter of an hour after the last one, a minute when the beat
names levels, ten seconds when something went wrong or when the plugin is suspicious already. Nothing is lost in
between: a sample holds the difference of the counters since the last one, and what went wrong last apart from the quiet
before, so that quiet hides nothing. What began before the last apply or the end of an incident is not in it.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from services.ingest.anomaly import scoring
from services.ingest.anomaly.peers import PeerSample
from services.ingest.anomaly.scoring import Baseline, Change, Evaluation
from services.ingest.observation import Observation
from services.ingest.plugin_state import PluginState
from services.ingest.windows import SLACK, Window


class ScheduleRules(NamedTuple):
    """Seconds after the last sample until the next one."""

    quiet: float = 900.0
    levels: float = 60.0
    shortest: float = 10.0
    # A score (nats) from which on a plugin counts as suspicious.
    suspicious: float = 5.0


RULES = ScheduleRules()


class LastSample(NamedTuple):
    """Where the counters stood at the last sample, and in which boot (a checksum of its id)."""

    at: float = 0.0
    boot: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    suspicious: bool = False


LAYOUT = struct.Struct("<dIQQQ?")
NEVER = LastSample()


def due(seen: Observation, *, suspected: bool, rules: ScheduleRules = RULES) -> bool:
    """Whether a beat is to be sampled; `suspected`: its incident is open."""
    state = seen.state
    since = state.last_beat_time - state.sample_time
    # Below none: ingest's clock was set back, and what is to come would be waited for.
    if 0.0 <= since < rules.shortest:
        return False
    if since < 0.0 or since >= rules.quiet or not seen.window.quiet or suspected:
        return True
    if seen.beat.numbers and since >= rules.levels:
        return True
    return bool(state.baseline) and bool(state.baseline[LAYOUT.size - 1])


def last_sample(baseline: bytes) -> LastSample:
    """The last sample of a stored baseline; NEVER when there is none."""
    return LastSample._make(LAYOUT.unpack_from(baseline)) if baseline else NEVER


def sample(seen: Observation, rules: ScheduleRules = RULES) -> Evaluation | None:
    """Evaluates what was counted since the last sample; the state (changed in place) has the baseline after it.

    Returns the evaluation that opens an anomaly, None when none does.
    """
    state, window = seen.state, seen.window
    last, at, boot = last_sample(state.baseline), state.last_beat_time, _boot(seen)
    baseline = scoring.unpack(state.baseline[LAYOUT.size :])
    if state.count_from_time > last.at:
        baseline = scoring.reset_scores(baseline)
    evaluated: list[Evaluation] = []
    # Of the first beats of a boot nobody knows since when their counters run.
    if last.boot == boot and window.start >= state.count_from_time - SLACK:
        evaluated = _evaluate(seen, baseline, _before(state, last, window))
        baseline = evaluated[-1].baseline
    suspicious = baseline.open or any(figure.score >= rules.suspicious for figure in baseline.figures.values())
    last = LastSample(at, boot, state.errors, state.webhook_attempts, state.webhook_failures, suspicious)
    state.baseline, state.sample_time, state.baseline_changed = LAYOUT.pack(*last) + scoring.pack(baseline), at, True
    state.like_itself = not baseline.open if evaluated else None
    return next((one for one in evaluated if one.change is Change.OPEN), None)


def _boot(seen: Observation) -> int:
    """Whose counters the state holds; a beat without a boot leaves them as they are."""
    boots = (seen.beat.boot_id, *seen.state.boot_ids, "-")
    return zlib.crc32(next(filter(None, boots)).encode())


def _evaluate(seen: Observation, baseline: Baseline, before: Window | None) -> list[Evaluation]:
    release, plugin, at = (seen.package, seen.state.release), seen.state.plugin, seen.state.last_beat_time
    references = seen.peers.references(release, plugin, at)
    evaluated: list[Evaluation] = []
    if before is not None:
        evaluated.append(scoring.evaluate(baseline, scoring.readings(before), before.duration, references))
        baseline = evaluated[-1].baseline
    readings = scoring.readings(seen.window, seen.beat.numbers)
    evaluated.append(scoring.evaluate(baseline, readings, seen.window.duration, references))
    seen.peers.add(release, plugin, PeerSample(at, evaluated[-1].baseline.figures, readings))
    return evaluated


def _before(state: PluginState, last: LastSample, window: Window) -> Window | None:
    """What was counted between the last sample and the newest window; None when there is nothing between."""
    errors = state.errors - window.errors - last.errors
    attempts = state.webhook_attempts - window.attempts - last.attempts
    failures = state.webhook_failures - window.failures - last.failures
    seconds = window.start - last.at
    if last.at < state.count_from_time or seconds <= SLACK or min(errors, attempts, failures) < 0:
        return None
    return Window(window.start, seconds, errors, attempts, failures, 0, 1, state.generation)
