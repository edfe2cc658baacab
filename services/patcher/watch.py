"""Watch: a remedy that was committed on low evidence is looked at until there is proof, or time is up.

Rule: an agent reverts by itself when no commit comes in time, so what nothing speaks against is committed even when
nothing speaks for it. The watch goes on where the verdict ended: it holds no slot and keeps no other attempt from the
plugin. It ends *proven* by a full pass, *worse* by a fail, which is rolled back like anything else, *unproven* when no
evidence came in time, and *superseded* when the plugin runs something else by then. Before it ended nothing is learned
from the remedy, and no rollout counts it. Looks are frequent at first and then seldom; that is harmless, for the tests
behind a verdict may be looked at as often as one likes.
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.patcher.evidence import Sums
from services.patcher.verdict import Result, Verdict

SHORTEST, LONGEST = timedelta(seconds=2), timedelta(minutes=5)
# The next look comes after this part of the time that has passed.
PART = 10


class State(enum.StrEnum):
    """Where a watch stands, and how it ended."""

    WATCHING = "watching"
    PROVEN = "proven"
    WORSE = "worse"
    UNPROVEN = "unproven"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Owner:
    """Who moves a state on, how long it may last, and what follows when nobody does."""

    owner: str
    lasts: str
    then: State


OWNERS = {State.WATCHING: Owner("verdict, look by look", "PATCHER_WATCH_SECONDS", State.UNPROVEN)}
FINAL = frozenset(State) - frozenset(OWNERS)


@dataclass(frozen=True)
class Watch:
    """One watch. Times are aware UTC; `before` is what the generation before did, kept from the first look on."""

    attempt: str
    plugin: str
    merchant: str
    generation: int
    begin_time: datetime
    until_time: datetime
    look_time: datetime
    state: State = State.WATCHING
    reason: str = ""
    before: Sums | None = None
    end_time: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL


@dataclass(frozen=True)
class Looked:
    """What a look found; `before` is what the verdict compared with."""

    verdict: Verdict
    before: Sums


@dataclass(frozen=True)
class NotSeen:
    """Nobody could look now."""


@dataclass(frozen=True)
class MovedOn:
    """The plugin left, or does not run the remedy any more."""

    reason: str


Observation = Looked | NotSeen | MovedOn


def begin(attempt: str, plugin: str, merchant: str, generation: int, now: datetime, lasts: timedelta) -> Watch:
    """A watch of a generation that was committed just now; 0 stands for whatever the first look finds."""
    return Watch(attempt, plugin, merchant, generation, now, now + lasts, now + SHORTEST)


def next(watch: Watch, observation: Observation, now: datetime) -> Watch:  # noqa: A001 - the hearts' word
    """The watch after the observation; one that is over changes no more."""
    if watch.over:
        return watch
    match observation:
        case MovedOn(reason):
            return _end(watch, now, State.SUPERSEDED, reason)
        case Looked(verdict) if verdict.result is Result.FAIL:
            return _end(watch, now, State.WORSE, verdict.explanation)
        case Looked(verdict) if verdict.result is Result.PASS and not verdict.low_evidence:
            return _end(watch, now, State.PROVEN, verdict.explanation)
        case Looked(verdict, before):
            watch = replace(watch, before=watch.before or before, reason=verdict.explanation)
    if now >= watch.until_time:
        lacking = watch.reason or "nothing was seen of it"
        return _end(watch, now, State.UNPROVEN, f"no proof in time: {lacking}")
    pause = min(LONGEST, max(SHORTEST, (now - watch.begin_time) / PART))
    return replace(watch, look_time=min(now + pause, watch.until_time))


def _end(watch: Watch, now: datetime, state: State, reason: str) -> Watch:
    return replace(watch, state=state, reason=reason, end_time=now)
