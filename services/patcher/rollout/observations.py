"""What can be observed about a rollout: words about single plugins, the control group, people, and time.

Rule: an observation is a plain record of what was seen; what it means is decided by the machine alone. A word about a
plugin brings the plugin's row as it is stored, so that a repeated one is recognised.
"""

import enum
from dataclasses import dataclass

from services.patcher.rollout.judging import Counts
from services.patcher.rollout.members import Member, MemberState


class Outcome(enum.StrEnum):
    """How a plugin's attempt ended: committed; taken back; broken and not taken back; or no word in time."""

    HEALTHY = "healthy"
    REVERTED = "reverted"
    BROKEN = "broken"
    SILENT = "silent"

    @property
    def state(self) -> MemberState:
        """The member's state after it."""
        return MemberState(self.value)


class Scope(enum.StrEnum):
    """What is rolled back when a rollout ends early."""

    NOTHING = "nothing"
    WAVE = "wave"
    ALL = "all"


@dataclass(frozen=True)
class Started:
    """An attempt was created for the plugin, and holds a slot."""

    member: Member


@dataclass(frozen=True)
class Switched:
    """The plugin's switch was permitted."""

    member: Member


@dataclass(frozen=True)
class Settled:
    """The plugin's attempt has a result. A healthy plugin that breaks while the wave soaks is told by this as well."""

    member: Member
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class NotSwitched:
    """The attempt ended with nothing applied; `again` when the plugin may be started once more."""

    member: Member
    reason: str
    again: bool = False


@dataclass(frozen=True)
class WentOffline:
    """The plugin is not connected; had it been started, its attempt ended with nothing applied."""

    member: Member


@dataclass(frozen=True)
class Returned:
    """A plugin that was offline is back."""

    member: Member


@dataclass(frozen=True)
class Left:
    """The plugin left for good, or must not get the build."""

    member: Member
    reason: str


@dataclass(frozen=True)
class TakenBack:
    """The plugin runs what it ran before the rollout."""

    member: Member


@dataclass(frozen=True)
class NotTakenBack:
    """The plugin could not be rolled back, or nobody heard of it in time."""

    member: Member
    reason: str


@dataclass(frozen=True)
class Allowed:
    """Policy and approvers let the rollout begin."""


@dataclass(frozen=True)
class Refused:
    """Policy or an approver said no."""

    actor: str
    reason: str


@dataclass(frozen=True)
class Compared:
    """The control group so far: plugins not switched, watched for as long as a probation, since the wave began."""

    control: Counts


@dataclass(frozen=True)
class PauseRequested:
    """A person or a gate wants nothing more to be started."""

    actor: str
    reason: str


@dataclass(frozen=True)
class ResumeRequested:
    """A person wants it to go on where it is."""

    actor: str
    reason: str


@dataclass(frozen=True)
class PromoteRequested:
    """A person wants the next wave now, without more soaking or evidence."""

    actor: str
    reason: str


@dataclass(frozen=True)
class AbortRequested:
    """A person wants it to end, with so much of it taken back."""

    actor: str
    reason: str
    scope: Scope = Scope.WAVE


@dataclass(frozen=True)
class BudgetChanged:
    """The in-flight budget is another."""

    budget: int
    actor: str
    reason: str


@dataclass(frozen=True)
class Superseded:
    """A newer rollout takes over: plugins that return later are its business."""

    by: str


@dataclass(frozen=True)
class Tick:
    """Time passed."""


Word = Started | Switched | Settled | NotSwitched | WentOffline | Returned | Left | TakenBack | NotTakenBack
Wish = PauseRequested | ResumeRequested | PromoteRequested | AbortRequested | BudgetChanged
Observation = Word | Wish | Allowed | Refused | Compared | Superseded | Tick
