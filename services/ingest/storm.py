"""Storms: when many plugins of a package break alike, the cause is most likely outside them.

Rule: a storm of (package, type) begins when more than ten percent of the package's active plugins, and at least five,
opened an incident of that type within five minutes. Automation for the pair pauses, one fleet incident pages, single
incidents attach to it; rolling back stays possible. It ends by itself when, for ten minutes on end, both the openings
and the plugins with an open incident are at or below half of what began it; a cause outside that has broken everything
opens nothing new and is not over. An operator can end it at any time; then only what opens afterwards can begin the
next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from libs.common.errors import Invalid, Refused


@dataclass(frozen=True, slots=True)
class Rules:
    """When a storm begins and ends; `share` is in whole percent of the package's active plugins."""

    share: int = 10
    least: int = 5
    window: timedelta = timedelta(minutes=5)
    cooldown: timedelta = timedelta(minutes=10)

    def begins_at(self, fleet: int) -> int:
        """The fewest plugins that make a storm: more than the share, and at least the least."""
        return max(self.least, fleet * self.share // 100 + 1)

    def ends_at(self, fleet: int) -> int:
        """The most plugins with which a storm cools down: half of what makes one."""
        return self.begins_at(fleet) // 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Distinct active plugins of the package: those that opened an incident of the type since `counted_from`, those
    that have one open now, and all.
    """

    opened: int
    affected: int
    fleet: int


class State(StrEnum):
    """Whether a pair (package, type) has a storm; OVER also when it never had one."""

    ONGOING = "ongoing"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who moves a pair out of a state, by when, and what follows."""

    owner: str
    deadline: str
    next: State | None


OWNERS = {
    State.ONGOING: Owner("ingest's sweep, or an operator", "below half for Rules.cooldown; it pages first", State.OVER),
    State.OVER: Owner("nobody", "nothing is wrong", None),
}


@dataclass(frozen=True, slots=True)
class Storm:
    """One pair (package, type). Times are aware UTC; `cooldown_time` is set while a storm cools down."""

    package: str
    type: str
    state: State = State.OVER
    start_time: datetime | None = None
    cooldown_time: datetime | None = None
    end_time: datetime | None = None
    # The openings that began it lie after this; single incidents opened since then attach.
    count_from_time: datetime | None = None
    peak: int = 0
    ended_by: str = ""


class StormEvent(StrEnum):
    """The facts of a storm; names as in events.proto."""

    STARTED = "storm_started"
    ENDED = "storm_ended"


@dataclass(frozen=True, slots=True)
class Transition:
    """The pair after a look, with the fact to record and its reason."""

    storm: Storm
    event: StormEvent | None = None
    reason: str = ""
    actor: str = ""


def count_from(storm: Storm, now: datetime, rules: Rules) -> datetime:
    """Since when openings count: within the window, and not before an operator said that it is over."""
    since = now - rules.window
    return max(since, storm.end_time) if storm.ended_by and storm.end_time else since


def advance(storm: Storm, counts: Counts, now: datetime, rules: Rules) -> Transition:
    """The pair after a look at the counts."""
    if storm.state is State.OVER:
        return _started(storm, counts, now, rules)
    peak = max(storm.peak, counts.affected, counts.opened)
    if max(counts.opened, counts.affected) > rules.ends_at(counts.fleet):
        return Transition(replace(storm, cooldown_time=None, peak=peak))
    since = storm.cooldown_time or now
    if now - since < rules.cooldown:
        return Transition(replace(storm, cooldown_time=since, peak=peak))
    minutes = rules.cooldown.total_seconds() / 60
    why = (
        f"{counts.affected} of {counts.fleet} {storm.package} plugins have {storm.type}, calm for {minutes:.0f} minutes"
    )
    return Transition(
        replace(storm, state=State.OVER, cooldown_time=None, end_time=now, ended_by=""), StormEvent.ENDED, why
    )


def end(storm: Storm, actor: str, reason: str, now: datetime) -> Transition:
    """An operator says it is over. Raises Refused when there is none, Invalid without a reason."""
    if storm.state is not State.ONGOING:
        raise Refused(f"there is no storm of {storm.type} in {storm.package}", reason="NO_STORM")
    if not reason.strip():
        raise Invalid("reason must say why the storm is over", reason="REASON_MISSING", field="reason")
    over = replace(storm, state=State.OVER, cooldown_time=None, end_time=now, ended_by=actor)
    return Transition(over, StormEvent.ENDED, reason.strip(), actor)


def _started(storm: Storm, counts: Counts, now: datetime, rules: Rules) -> Transition:
    needed = rules.begins_at(counts.fleet)
    if counts.opened < needed:
        return Transition(storm)
    minutes = rules.window.total_seconds() / 60
    why = (
        f"{counts.opened} of {counts.fleet} {storm.package} plugins opened {storm.type} within {minutes:.0f} minutes, "
        f"{needed} make a storm: the cause is most likely outside them"
    )
    started = Storm(
        storm.package,
        storm.type,
        State.ONGOING,
        start_time=now,
        count_from_time=count_from(storm, now, rules),
        peak=max(counts.opened, counts.affected),
    )
    return Transition(started, StormEvent.STARTED, why)
