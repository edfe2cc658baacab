"""Storms: when many plugins of a package fall ill alike, the cause is most likely outside them.

Rule: a storm of (package, type) begins when more than ten percent of the package's active plugins, and at least five,
opened an incident of that type within five minutes. Automation for the pair pauses, one fleet incident pages, single
incidents attach to it; rolling back stays possible. It ends by itself when, for ten minutes on end, both the openings
and the plugins still ill are at or below half of what began it; a cause outside that has made everybody ill opens
nothing new and is not over. A person can end it at any time; then only what opens afterwards can begin the next one.
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
    calm: timedelta = timedelta(minutes=10)

    def begins_at(self, fleet: int) -> int:
        """The fewest plugins that make a storm: more than the share, and at least the least."""
        return max(self.least, fleet * self.share // 100 + 1)

    def calms_at(self, fleet: int) -> int:
        """The most plugins with which it is calm: half of what makes a storm."""
        return self.begins_at(fleet) // 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Distinct active plugins of the package: those that opened an incident of the type since `counted_from`, those
    that have one open now, and all.
    """

    opened: int
    ill: int
    fleet: int


class State(StrEnum):
    """Where a pair (package, type) stands."""

    CALM = "calm"
    STORM = "storm"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who moves a pair out of a state, by when, and what follows."""

    owner: str
    deadline: str
    next: State | None


OWNERS = {
    State.CALM: Owner("nobody", "nothing is wrong", None),
    State.STORM: Owner("ingest's sweep, or a person", "calm for Rules.calm; it pages from the first", State.CALM),
}


@dataclass(frozen=True, slots=True)
class Storm:
    """One pair (package, type). Times are aware UTC; `calm_since` is set while a storm calms down."""

    package: str
    type: str
    state: State = State.CALM
    begin_time: datetime | None = None
    calm_since: datetime | None = None
    end_time: datetime | None = None
    # The openings that began it lie after this; single incidents opened since then attach.
    from_time: datetime | None = None
    worst: int = 0
    ended_by: str = ""


class Told(StrEnum):
    """The facts a storm tells."""

    BEGAN = "storm_began"
    ENDED = "storm_ended"


@dataclass(frozen=True, slots=True)
class Step:
    """The pair after a look, with the fact to tell and a sentence for people."""

    storm: Storm
    told: Told | None = None
    reason: str = ""
    actor: str = ""


def counted_from(storm: Storm, now: datetime, rules: Rules) -> datetime:
    """Since when openings count: within the window, and not before a person said that it is over."""
    since = now - rules.window
    return max(since, storm.end_time) if storm.ended_by and storm.end_time else since


def next(storm: Storm, counts: Counts, now: datetime, rules: Rules) -> Step:  # noqa: A001 - the word of the design
    """The pair after a look at the counts."""
    if storm.state is State.CALM:
        return _began(storm, counts, now, rules)
    worst = max(storm.worst, counts.ill, counts.opened)
    if max(counts.opened, counts.ill) > rules.calms_at(counts.fleet):
        return Step(replace(storm, calm_since=None, worst=worst))
    since = storm.calm_since or now
    if now - since < rules.calm:
        return Step(replace(storm, calm_since=since, worst=worst))
    minutes = rules.calm.total_seconds() / 60
    why = f"{counts.ill} of {counts.fleet} {storm.package} plugins have {storm.type}, calm for {minutes:.0f} minutes"
    return Step(replace(storm, state=State.CALM, calm_since=None, end_time=now, ended_by=""), Told.ENDED, why)


def end(storm: Storm, actor: str, reason: str, now: datetime) -> Step:
    """A person says it is over. Raises Refused when there is none, Invalid without a reason."""
    if storm.state is not State.STORM:
        raise Refused(f"there is no storm of {storm.type} in {storm.package}", reason="NO_STORM")
    if not reason.strip():
        raise Invalid("reason must say why the storm is over", reason="REASON_MISSING", field="reason")
    over = replace(storm, state=State.CALM, calm_since=None, end_time=now, ended_by=actor)
    return Step(over, Told.ENDED, reason.strip(), actor)


def attaches(storm: Storm, open_time: datetime) -> bool:
    """Whether a single incident of the pair, opened then, belongs to the storm that is on."""
    return storm.state is State.STORM and storm.from_time is not None and open_time >= storm.from_time


def sentence(storm: Storm, counts: Counts) -> str:
    """What people read while automation pauses."""
    share = 100 * counts.ill / max(counts.fleet, 1)
    return f"{counts.ill} of {counts.fleet} {storm.package} plugins ({share:.0f} %) have {storm.type} at once"


def _began(storm: Storm, counts: Counts, now: datetime, rules: Rules) -> Step:
    needed = rules.begins_at(counts.fleet)
    if counts.opened < needed:
        return Step(storm)
    minutes = rules.window.total_seconds() / 60
    why = (
        f"{counts.opened} of {counts.fleet} {storm.package} plugins opened {storm.type} within {minutes:.0f} minutes, "
        f"{needed} make a storm: the cause is most likely outside them"
    )
    begun = Storm(
        storm.package,
        storm.type,
        State.STORM,
        begin_time=now,
        from_time=counted_from(storm, now, rules),
        worst=max(counts.opened, counts.ill),
    )
    return Step(begun, Told.BEGAN, why)
