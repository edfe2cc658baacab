"""The record of an approval, its statuses with owner and end, and what can be observed.

Rule: no status without an owner and an end; the sweep reads `Approval.due_time`.
"""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.patcher.approvals.quorum import Quorum, Vote


@dataclass(frozen=True)
class Times:
    """How long people may take to answer, and how long their answer is good for."""

    timeout: timedelta = timedelta(hours=1)
    validity: timedelta = timedelta(hours=1)

    @property
    def remind_after(self) -> timedelta:
        """When those asked are reminded: after a quarter of the time to answer."""
        return self.timeout / 4

    @property
    def escalate_after(self) -> timedelta:
        """When others are told that nobody answers: after half of it."""
        return self.timeout / 2


@dataclass(frozen=True)
class Subject:
    """What an approval is about: `name` is attempts/{attempt} or rollouts/{rollout}, the rest is for its facts."""

    name: str
    plugin: str = ""
    merchant: str = ""
    incident: str = ""


class Status(enum.StrEnum):
    """The status of an approval."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Owner:
    """Who ends a status, until when, and what follows when nobody does."""

    owner: str
    deadline_time: str
    next: Status | None


OWNERS: Final = {
    Status.OPEN: Owner("approvers", "expire_time, reminded and escalated before", Status.EXPIRED),
    Status.APPROVED: Owner("patcher", "expire_time", Status.EXPIRED),
    Status.REJECTED: Owner("nobody", "it is over", None),
    Status.EXPIRED: Owner("nobody", "it is over", None),
}
LIVE: Final = frozenset({Status.OPEN, Status.APPROVED})


@dataclass(frozen=True)
class PlanChanged:
    """The plan is another one now; who changed it is an author from here on."""

    plan_hash: str
    author: str


@dataclass(frozen=True)
class Tick:
    """Time passed."""


Observation = Vote | PlanChanged | Tick


class ApprovalEvent(enum.StrEnum):
    """The facts an approval records."""

    REQUESTED = "approval_requested"
    VOTED = "approval_voted"
    REMINDED = "approval_reminded"
    ESCALATED = "approval_escalated"
    GRANTED = "approval_granted"
    REJECTED = "approval_rejected"
    EXPIRED = "approval_expired"
    VOIDED = "approval_voided"


@dataclass(frozen=True)
class Fact:
    """A fact, with who and why."""

    event: ApprovalEvent
    reason: str
    actor: str = ""


@dataclass(frozen=True)
class Approval:
    """One approval. `plan` is the hash in force; `votes` are the yeses for it; times are aware UTC."""

    id: str
    subject: str
    plan_hash: str
    quorum: Quorum
    authors: frozenset[str]
    proposer: str
    times: Times
    create_time: datetime
    expire_time: datetime
    request_time: datetime
    status: Status = Status.OPEN
    votes: tuple[Vote, ...] = ()
    reminded: bool = False
    escalated: bool = False
    reason: str = ""

    @property
    def due_time(self) -> datetime | None:
        """When a tick next has something to say; None when it is over."""
        if self.status not in LIVE:
            return None
        if self.status is Status.OPEN and not self.reminded:
            return self.request_time + self.times.remind_after
        if self.status is Status.OPEN and not self.escalated:
            return self.request_time + self.times.escalate_after
        return self.expire_time


@dataclass(frozen=True)
class Change:
    """The approval after an observation, and the facts to tell."""

    approval: Approval
    facts: tuple[Fact, ...] = ()
