"""Which boot of a plugin is the current one, and whether two machines live with one credential.

Rule: what comes again is a repeat. What a former boot sends and was not received before may have been on its way when
the current one began: it is late, is acknowledged and changes nothing. It is late no more when it comes in a session
that began after the current boot's last beat, or longer after that boot took over than a beat can be on its way. Then
the former boot lives and is the current one again: a return. One machine may return, after a pause or from an image
that was restored; two that live alternate and advance, so one of them returns each time the other has, and the third
return without a new boot in between is the proof.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

# Boots that are remembered: of more machines that share one credential some pair alternates all the same.
MOST = 16
# Returns without a new boot between them.
PROOF = 3


class BootOutcome(Enum):
    """What a beat of a boot is."""

    NEW = "new"
    CONTINUED = "continued"
    REPEATED = "repeated"
    LATE = "late"
    RETURNED = "returned"
    CLONED = "cloned"


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot and the highest sequence received of it."""

    id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Boots:
    """The current boot, then the former ones, newest first.

    `take_over_time` (Unix seconds of ingest's clock) is when the current one became so, `epoch` the plugin's session
    epoch at its last beat, `returns` how often a former boot returned since the last new one.
    """

    known: tuple[Boot, ...] = ()
    take_over_time: float = 0.0
    epoch: int = 0
    returns: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A beat as it arrives: `epoch` is that of its session (0: without one), `session_epoch` the plugin's newest."""

    boot: str
    sequence: int
    time: float
    epoch: int
    session_epoch: int


def receive(boots: Boots, beat: Arrival, longest_delay: float) -> tuple[BootOutcome, Boots]:
    """What a beat is, and what is known of the boots after it; `longest_delay` in seconds."""
    # The clock was set back: waiting until it is where it was would hide a clone for as long.
    boots = replace(boots, take_over_time=min(boots.take_over_time, beat.time))
    known = next((boot for boot in boots.known if boot.id == beat.boot), None)
    if known is None:
        return BootOutcome.NEW, _with_current(boots, beat, returns=0)
    if beat.sequence <= known.sequence:
        return BootOutcome.REPEATED, boots
    if known is boots.known[0]:
        updated = (Boot(beat.boot, beat.sequence), *boots.known[1:])
        return BootOutcome.CONTINUED, replace(boots, known=updated, epoch=beat.session_epoch)
    if beat.epoch <= boots.epoch and beat.time - boots.take_over_time <= longest_delay:
        updated = tuple(Boot(beat.boot, beat.sequence) if boot is known else boot for boot in boots.known)
        return BootOutcome.LATE, replace(boots, known=updated)
    if boots.returns + 1 >= PROOF:
        return BootOutcome.CLONED, boots
    return BootOutcome.RETURNED, _with_current(boots, beat, returns=boots.returns + 1)


def _with_current(boots: Boots, beat: Arrival, *, returns: int) -> Boots:
    others = tuple(boot for boot in boots.known if boot.id != beat.boot)
    known = (Boot(beat.boot, beat.sequence), *others)[:MOST]
    return Boots(known, beat.time, beat.session_epoch, returns)
