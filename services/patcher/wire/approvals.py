"""Approvals as callers see them, and their facts as events."""

from collections.abc import Iterator
from typing import Protocol

from google.protobuf.message import Message

from libs.common import names
from libs.common.bus import fact
from libs.common.errors import Invalid
from prunella.v1 import events_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event
from services.patcher.approvals import Approval, ApprovalEvent, Fact, Quorum, Status, Vote
from services.patcher.wire.events import SOURCE
from services.patcher.wire.scalars import timestamp

STATES = {
    Status.WAITING: "open",
    Status.APPROVED: "approved",
    Status.REJECTED: "rejected",
    Status.EXPIRED: "expired",
}
ENDS = {ApprovalEvent.GRANTED: "approved", ApprovalEvent.REJECTED: "rejected", ApprovalEvent.EXPIRED: "expired"}


class Subject(Protocol):
    """What the facts of an approval are about."""

    @property
    def subject(self) -> str:
        """attempts/{attempt} or rollouts/{rollout}."""

    @property
    def plugin(self) -> str:
        """Empty for a rollout."""

    @property
    def merchant(self) -> str:
        """Empty for a rollout."""

    @property
    def incident(self) -> str:
        """Empty where there is none."""


def approval(found: Approval, plan_text: str) -> patcher_pb2.Approval:
    """An approval as callers see it, with the plan they are asked about."""
    told = patcher_pb2.Approval(
        plan=plan_text,
        plan_hash=found.plan,
        quorum=found.quorum.size,
        roles=found.quorum.seats,
        state=STATES[found.status],
        expire_time=timestamp(found.expire_time),
        excluded=sorted(name for name in found.authors | {found.proposer} if name),
        reason=found.reason,
    )
    for vote in found.votes:
        role = next(iter(sorted(vote.roles)), "")
        told.votes.add(actor=names.operator(vote.operator), role=role, approved=vote.approved, reason=vote.reason)
    return told


def vote(
    request: patcher_pb2.ApproveAttemptRequest | patcher_pb2.RejectAttemptRequest, need: Quorum, who: str, *, yes: bool
) -> Vote:
    """A person's word. Raises Invalid when the plan is not named, or the role is none that is asked for."""
    if not request.plan_hash:
        raise Invalid(
            "plan_hash must say which plan you have read; GetAttempt shows it", reason="PLAN_MISSING", field="plan_hash"
        )
    roles = tuple(dict.fromkeys(need.seats))
    if (request.role and request.role not in roles) or (not request.role and len(roles) > 1):
        wrong = f"{request.role[:40]!r} is not a role that is asked for" if request.role else "role must be named"
        raise Invalid(
            f"{wrong}; use {' or '.join(roles)}", reason="APPROVAL_ROLE", field="role", roles=", ".join(roles)
        )
    return Vote(who, frozenset({request.role or roles[0]}), yes, request.plan_hash, request.request_id, request.reason)


def approval_events(told: Fact, found: Approval, before: str, about: Subject, cause: Event | None) -> Iterator[Event]:
    """The events that tell a fact of an approval; `before` is the hash of the plan that was in force."""
    if told.event in ENDS:
        yield approval_ended(about, found.plan, ENDS[told.event], told.reason, cause, told.actor)
        return
    if told.event is ApprovalEvent.VOIDED:
        yield approval_ended(about, before, "void", told.reason, cause, told.actor)
        yield _event(about, _requested(about, found), "people are asked about the changed plan", cause)
        return
    yield _event(about, _message(told, about, found), told.reason, cause, told.actor)


def approval_ended(about: Subject, plan: str, outcome: str, reason: str, cause: Event | None, actor: str = "") -> Event:
    """The event that tells an end: approved, rejected, expired or void."""
    message = events_pb2.ApprovalEnded(subject=about.subject, plan_hash=plan, outcome=outcome)
    return _event(about, message, reason, cause, actor)


def _requested(about: Subject, found: Approval) -> events_pb2.ApprovalRequested:
    return events_pb2.ApprovalRequested(
        subject=about.subject,
        plan_hash=found.plan,
        quorum=found.quorum.size,
        roles=found.quorum.seats,
        expire_time=timestamp(found.expire_time),
    )


def _message(told: Fact, about: Subject, found: Approval) -> Message:
    if told.event is ApprovalEvent.REQUESTED:
        return _requested(about, found)
    if told.event is ApprovalEvent.VOTED:
        role = next((next(iter(sorted(vote.roles)), "") for vote in found.votes if vote.operator == told.actor), "")
        approvals = sum(vote.approved for vote in found.votes)
        return events_pb2.ApprovalGiven(
            subject=about.subject, plan_hash=found.plan, role=role, approvals=approvals, quorum=found.quorum.size
        )
    return events_pb2.ApprovalOverdue(
        subject=about.subject,
        plan_hash=found.plan,
        escalated=told.event is ApprovalEvent.ESCALATED,
        expire_time=timestamp(found.expire_time),
    )


def _event(about: Subject, message: Message, reason: str, cause: Event | None, actor: str = "") -> Event:
    who = names.operator(actor) if actor else ""
    return fact(
        SOURCE,
        message,
        actor=who,
        reason=reason,
        plugin=about.plugin,
        merchant=about.merchant,
        incident=about.incident,
        cause=cause,
    )
