"""Members: where each plugin of a rollout stands, and what an observation of one does to it.

Rule: a plugin is exposed from the moment its switch is permitted, in that order, and what is counted against the build
stays counted, whatever is reported later: a test that takes evidence back guarantees nothing. What was committed on low
evidence is watched, and counts as good only when its watch ended well. A plugin that is offline
or left out is in no denominator. An observation that comes late, twice or about another state changes nothing.
"""

import bisect
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from services.patcher.rollout.judging import Exposure


class MemberState(enum.StrEnum):
    """Where a plugin of a rollout stands."""

    WAITING = "waiting"
    OFFLINE = "offline"
    STARTED = "started"
    SWITCHED = "switched"
    HEALTHY = "healthy"
    WATCHED = "watched"
    REVERTED = "reverted"
    BROKEN = "broken"
    SILENT = "silent"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    SKIPPED = "skipped"


IN_FLIGHT = (MemberState.STARTED, MemberState.SWITCHED)
COUNTED_AGAINST = (MemberState.REVERTED, MemberState.BROKEN, MemberState.SILENT)
# What a rollback of a wave reaches: everything that runs the build, or may.
TOUCHED = (*IN_FLIGHT, MemberState.HEALTHY, MemberState.WATCHED, MemberState.BROKEN, MemberState.SILENT)
SETTLED = (MemberState.HEALTHY, *COUNTED_AGAINST)


@dataclass(frozen=True)
class Member:
    """A plugin in a rollout. `place` is its number among the switched of its wave, 0 before; `tries` its starts."""

    plugin: str
    wave: int
    state: MemberState = MemberState.WAITING
    switch_number: int = 0
    counted_against: bool = False
    tries: int = 0
    reason: str = ""


class Outcome(enum.StrEnum):
    """How a plugin's attempt ended: committed; taken back; broken and not taken back; or no word in time."""

    HEALTHY = "healthy"
    WATCHED = "watched"
    REVERTED = "reverted"
    BROKEN = "broken"
    SILENT = "silent"

    @property
    def state(self) -> MemberState:
        """The member's state after it."""
        return MemberState(self.value)


@dataclass(frozen=True)
class AboutMember:
    """What is observed of one plugin."""

    member: Member


class Started(AboutMember):
    """An attempt was created for the plugin, and holds a slot."""


class Switched(AboutMember):
    """The plugin's switch was permitted."""


@dataclass(frozen=True)
class Settled(AboutMember):
    """The plugin's attempt has a result. A healthy plugin that breaks while the wave soaks is told by this as well."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Unproven(AboutMember):
    """The plugin's attempt committed on low evidence: it runs the build, and nothing is known of it yet.

    What its watch finds comes as `Settled`; without proof in time, and when it runs something else, it stays unknown.
    """

    reason: str = ""


@dataclass(frozen=True)
class NotSwitched(AboutMember):
    """The attempt ended with nothing applied; `again` when the plugin may be started once more."""

    reason: str
    retry: bool = False


class WentOffline(AboutMember):
    """The plugin is not connected; had it been started, its attempt ended with nothing applied."""


class Returned(AboutMember):
    """A plugin that was offline is back."""


@dataclass(frozen=True)
class PluginLeft(AboutMember):
    """The plugin left for good, or must not get the build."""

    reason: str


class RolledBack(AboutMember):
    """The plugin runs what it ran before the rollout."""


@dataclass(frozen=True)
class RollbackFailed(AboutMember):
    """The plugin could not be rolled back, or nobody heard of it in time."""

    reason: str


MemberObservation = (
    Started | Switched | Settled | Unproven | NotSwitched | WentOffline | Returned | PluginLeft | RolledBack
    | RollbackFailed
)  # fmt: skip


@dataclass(frozen=True)
class Tally:
    """The members of one wave by state, and those that were switched in their order."""

    planned: int = 0
    counts: Mapping[MemberState, int] = field(default_factory=dict)
    exposed: int = 0
    broken: tuple[int, ...] = ()

    @property
    def exposure(self) -> Exposure:
        """What the wave is judged by."""
        return Exposure(self.exposed, self.broken)

    def of(self, *states: MemberState) -> int:
        """How many are in one of these states."""
        return sum(self.counts.get(state, 0) for state in states)


Tallies = tuple[Tally, ...]


@dataclass(frozen=True)
class MemberChange:
    """A member and the tallies after a word; `settled` when a result came, `against` when it blames the build."""

    member: Member
    tallies: Tallies
    settled: bool = False
    counted_against: bool = False


def move(member: Member, tallies: Tallies, state: MemberState, reason: str = "", *, wave: int = 0) -> MemberChange:
    """The member in another state (and wave), its tallies with it."""
    moved = replace(member, state=state, reason=reason, wave=wave or member.wave)
    tallies = _add(tallies, member.wave, member.state, -1)
    return MemberChange(moved, _add(tallies, moved.wave, state, 1))


def start(member: Member, tallies: Tallies, wave: int) -> MemberChange:
    """The member is in flight, in the wave that is current."""
    return move(replace(member, tries=member.tries + 1), tallies, MemberState.STARTED, wave=wave)


def switch(member: Member, tallies: Tallies) -> MemberChange:
    """The member is exposed: it takes the next place in its wave, unless it has one from a try before."""
    if member.switch_number:
        return move(member, tallies, MemberState.SWITCHED)
    tally = tallies[member.wave - 1]
    placed = replace(member, switch_number=tally.exposed + 1)
    return move(placed, _put(tallies, member.wave, replace(tally, exposed=placed.switch_number)), MemberState.SWITCHED)


def watch(member: Member, tallies: Tallies, reason: str) -> MemberChange:
    """The member runs the build, and is exposed; whether it is good is still to be seen."""
    exposed = MemberChange(member, tallies) if member.switch_number else switch(member, tallies)
    return move(exposed.member, exposed.tallies, MemberState.WATCHED, reason)


def settle(member: Member, tallies: Tallies, state: MemberState, reason: str) -> MemberChange:
    """The member's result; one that nobody saw switch is exposed all the same."""
    if not member.switch_number:
        exposed = switch(member, tallies)
        member, tallies = exposed.member, exposed.tallies
    fresh = state in COUNTED_AGAINST and not member.counted_against
    if fresh:
        tally = tallies[member.wave - 1]
        broken = list(tally.broken)
        bisect.insort(broken, member.switch_number)
        tallies = _put(tallies, member.wave, replace(tally, broken=tuple(broken)))
        member = replace(member, counted_against=True)
    settled = member.state in (*IN_FLIGHT, MemberState.WATCHED) or fresh
    return replace(move(member, tallies, state, reason), settled=settled, counted_against=fresh)


def roll_back_waves(tallies: Tallies, waves: range) -> Tallies:
    """The tallies when everything touched in these waves is being rolled back."""
    return tuple(_rolled_back_tally(tally) if number in waves else tally for number, tally in enumerate(tallies, 1))


def _rolled_back_tally(tally: Tally) -> Tally:
    counts = {state: count for state, count in tally.counts.items() if state not in TOUCHED}
    rolling = counts.get(MemberState.ROLLING_BACK, 0) + tally.of(*TOUCHED)
    return replace(tally, counts={**counts, MemberState.ROLLING_BACK: rolling} if rolling else counts)


def _add(tallies: Tallies, wave: int, state: MemberState, change: int) -> Tallies:
    tally = tallies[wave - 1]
    counts = {**tally.counts, state: tally.counts.get(state, 0) + change}
    return _put(tallies, wave, replace(tally, counts={key: count for key, count in counts.items() if count}))


def _put(tallies: Tallies, wave: int, tally: Tally) -> Tallies:
    return (*tallies[: wave - 1], tally, *tallies[wave:])
