"""Which report an error is counted in: its own, the one its kind was merged into, or the one for too many kinds.

Rule: a kind is what a plugin's errors of one fingerprint are. A kind that people merged into another report is counted
there, whatever else is true. A kind with a report of its own is counted in it. A new kind gets a report of its own
while its plugin has had fewer than so many new ones within the last hour; beyond that one report per plugin holds the
rest: every occurrence is counted, and of each kind the last sample is kept. A kind that is met again when there is room
leaves that report for one of its own and takes no occurrence along, so that none is counted twice.

People merge reports of one plugin only: the same words elsewhere may be another bug, and merchants share nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# Plugin and fingerprint.
Kind = tuple[str, str]

TOO_MANY_KINDS = "too_many_kinds"
OVERFLOW = hashlib.sha256(b"prunella-too-many-kinds-1").hexdigest()
OVERFLOW_GROUPING = ("everything of this plugin that came as a new kind of error when there were too many of them",)
OPEN = frozenset({"new", "triaging", "in_progress", "escalated"})
OVER = frozenset({"resolved", "closed"})


class Place(StrEnum):
    """Where an occurrence is counted."""

    OWN = "own"
    MERGED = "merged"
    OVERFLOW = "overflow"


@dataclass(frozen=True)
class KnownKind:
    """What is known of a kind: `own` has a report, `merged` by people; `overflow` was counted among too many kinds, up
    to `counter_value` of `counter`.
    """

    own: bool = False
    merged: bool = False
    overflow: bool = False
    counter: str = ""
    counter_value: int = 0

    @property
    def new(self) -> bool:
        """Whether it has no report of its own yet."""
        return not self.own and not self.merged

    def counted(self, counter: str, value: int) -> int:
        """How much of a counter's value was counted among too many kinds."""
        return min(self.counter_value, value) if self.overflow and counter and counter == self.counter else 0


@dataclass(frozen=True)
class Mergeable:
    """What decides whether reports may be merged."""

    id: str
    plugin: str
    merchant: str
    fingerprint: str
    merged_into: str = ""


def places(
    kinds: Iterable[tuple[Kind, bool]], known: Mapping[Kind, KnownKind], room: Mapping[str, int]
) -> dict[Kind, Place]:
    """A place for each kind, the first ones first; with each, whether it grew since it was last counted.

    `room` is how many new reports each plugin may still have.
    """
    left = dict(room)
    found: dict[Kind, Place] = {}
    for kind, grew in kinds:
        one = known.get(kind, KnownKind())
        if one.merged:
            found[kind] = Place.MERGED
        elif one.own:
            found[kind] = Place.OWN
        elif grew and left.get(kind[0], 0) > 0:
            left[kind[0]] -= 1
            found[kind] = Place.OWN
        else:
            found[kind] = Place.OVERFLOW
    return found


def merge_refusal(one: Mergeable, into: Mergeable) -> tuple[str, str] | None:
    """Why a report may not be merged into another: reason and sentence; None when it may."""
    if one.id == into.id:
        return "MERGED_INTO_ITSELF", "a report cannot be merged into itself; leave it out"
    if (one.plugin, one.merchant) != (into.plugin, into.merchant):
        return "OTHER_PLUGIN", "it belongs to another plugin; merge reports of one plugin only"
    if OVERFLOW in (one.fingerprint, into.fingerprint):
        return "TOO_MANY_KINDS", "the report for too many kinds takes and gives by itself; merge the others"
    if one.merged_into and one.merged_into != into.id:
        return "MERGED_ELSEWHERE", f"it is merged into {one.merged_into}; split it first"
    return None


def state_after_split(before: str, occurrences: int) -> str:
    """The state of a report that is on its own again: what was over stays so unless it occurred meanwhile."""
    return before if before in OVER and not occurrences else "new"


def reopens(one: str, into: str) -> bool:
    """Whether what is merged is open and what it is merged into was thought over, which is then looked at again."""
    return one in OPEN and into in OVER
