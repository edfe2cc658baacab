"""Approvals: so many different people, in the right roles, for exactly this plan.

Rule: a plan that needs people waits until `quorum` different people approved it and every seat is filled by another
one of them. Who wrote the plan, or changed it, and the service that proposed it have no vote. Votes are for one plan
hash: when the plan changes in any way, they are void and the waiting begins again. One rejection ends it. Nobody
answers: they are reminded, then others are told, then it expires. An approval that was given lasts a while and is used
for the plan it was given for or not at all.

    waiting → approved → (used, or expired)
       │  ↑______│ the plan changed
       └→ rejected · expired                        nothing leaves these two
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from libs.common.errors import Denied, Refused, Stale
from services.patcher.approvals.model import (
    LIVE,
    Approval,
    ApprovalEvent,
    Change,
    Fact,
    Observation,
    PlanChanged,
    Status,
    Tick,
    Times,
)
from services.patcher.approvals.quorum import Quorum, Vote, check, describe, identity, invalid, is_met, may_vote

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(days=7)


def create(
    id: str,  # noqa: A002 - the word of the design
    subject: str,
    plan: str,
    quorum: Quorum,
    *,
    authors: Iterable[str],
    proposer: str,
    times: Times,
    now: datetime,
) -> Change:
    """Asks people about a plan, given its hash. Raises Invalid when the need makes no sense or the hash is missing."""
    check(quorum)
    if not plan:
        raise invalid("plan", "a plan is known by its hash", "compute it from plan_text")
    if not SHORTEST <= times.timeout <= LONGEST or not SHORTEST <= times.validity <= LONGEST:
        raise invalid("times", "people need 1 minute to 7 days", "leave it out for 1 hour")
    made = Approval(
        id, subject, plan, quorum, frozenset(identity(author) for author in authors), identity(proposer), times,
        create_time=now, expire_time=now + times.timeout, request_time=now,
    )  # fmt: skip
    return Change(made, (Fact(ApprovalEvent.REQUESTED, f"{describe(quorum)} must approve plan {plan[:12]}"),))


def next(approval: Approval, observation: Observation, now: datetime) -> Change:  # noqa: A001
    """The approval after the observation, at `now`.

    Raises Denied for who has no vote, Stale for a vote on another plan, Refused for one too late or given twice.
    """
    passed = _tick(approval, now)
    match observation:
        case Tick():
            return passed
        case PlanChanged():
            return _changed(passed, observation, now)
        case Vote():
            return _voted(passed, observation, now)
        case _:
            assert_never(observation)


def satisfied(approval: Approval, plan: str, now: datetime) -> bool:
    """Whether exactly this plan may go ahead now: the one question a gate asks."""
    return (
        approval.status is Status.APPROVED
        and approval.plan_hash == plan
        and now < approval.expire_time
        and is_met(approval.quorum, approval.votes)
    )


def _tick(approval: Approval, now: datetime) -> Change:
    if approval.status not in LIVE:
        return Change(approval)
    if now >= approval.expire_time:
        answered = approval.status is Status.APPROVED
        why = "it was approved and not used in time" if answered else f"nobody answered within {approval.times.timeout}"
        if approval.votes and not answered:
            why = f"only {len(approval.votes)} of {approval.quorum.size} approved within {approval.times.timeout}"
        over = replace(approval, status=Status.EXPIRED, reason=why)
        return Change(over, (Fact(ApprovalEvent.EXPIRED, why),))
    if approval.status is Status.APPROVED:
        return Change(approval)
    missing = f"{len(approval.votes)} of {approval.quorum.size} have approved, it expires at {approval.expire_time}"
    if not approval.escalated and now >= approval.request_time + approval.times.escalate_after:
        return Change(replace(approval, reminded=True, escalated=True), (Fact(ApprovalEvent.ESCALATED, missing),))
    if not approval.reminded and now >= approval.request_time + approval.times.remind_after:
        return Change(replace(approval, reminded=True), (Fact(ApprovalEvent.REMINDED, missing),))
    return Change(approval)


def _changed(passed: Change, changed: PlanChanged, now: datetime) -> Change:
    approval = passed.approval
    if approval.status not in LIVE or changed.plan_hash == approval.plan_hash:
        return passed
    if not changed.plan_hash:
        raise invalid("plan", "a plan is known by its hash", "compute it from plan_text")
    why = f"the plan changed to {changed.plan_hash[:12]}, {len(approval.votes)} approvals are void"
    anew = replace(
        approval,
        plan_hash=changed.plan_hash,
        authors=approval.authors | {identity(changed.author)},
        status=Status.OPEN,
        votes=(),
        reminded=False,
        escalated=False,
        request_time=now,
        expire_time=now + approval.times.timeout,
        reason="",
    )
    return Change(anew, (*passed.facts, Fact(ApprovalEvent.VOIDED, why, changed.author)))


def _voted(passed: Change, vote: Vote, now: datetime) -> Change:
    approval = passed.approval
    if _counted(approval, vote):
        return passed
    _admit(approval, vote)
    if not vote.approved:
        why = vote.reason or "no reason given"
        over = replace(
            approval,
            status=Status.REJECTED,
            votes=(*approval.votes, vote),
            reason=f"rejected by {vote.operator}: {why}",
        )
        return Change(over, (*passed.facts, Fact(ApprovalEvent.REJECTED, why, vote.operator)))
    known = replace(approval, votes=(*approval.votes, vote))
    voted = Fact(
        ApprovalEvent.VOTED, f"{len(known.votes)} of {known.quorum.size}: {vote.reason}".rstrip(": "), vote.operator
    )
    if not is_met(known.quorum, known.votes):
        return Change(known, (*passed.facts, voted))
    granted = replace(known, status=Status.APPROVED, expire_time=now + known.times.validity)
    names = ", ".join(each.operator for each in known.votes)
    return Change(granted, (*passed.facts, voted, Fact(ApprovalEvent.GRANTED, f"approved by {names}", vote.operator)))


def _counted(approval: Approval, vote: Vote) -> bool:
    return bool(vote.request_id) and any(
        (known.request_id, identity(known.operator), known.approved, known.plan_hash)
        == (vote.request_id, identity(vote.operator), vote.approved, vote.plan_hash)
        for known in approval.votes
    )


def _admit(approval: Approval, vote: Vote) -> None:
    operator = identity(vote.operator)
    if approval.status is Status.EXPIRED:
        raise Refused(f"it has expired: {approval.reason}; ask again", reason="APPROVAL_EXPIRED")
    if approval.status is Status.REJECTED:
        raise Refused(f"it was {approval.reason}; propose another plan", reason="APPROVAL_REJECTED")
    if not operator:
        raise Denied("nobody in particular cannot approve; sign in", reason="APPROVAL_ANONYMOUS")
    if operator in approval.authors:
        raise Denied(f"{vote.operator} wrote this plan; another person must decide", reason="APPROVAL_BY_AUTHOR")
    if operator == approval.proposer:
        raise Denied(f"{vote.operator} proposed this plan; a person must decide", reason="APPROVAL_BY_PROPOSER")
    if not may_vote(approval.quorum, vote):
        raise Denied(f"this takes {describe(approval.quorum)}; {vote.operator} is none of them", reason="APPROVAL_ROLE")
    if vote.plan_hash != approval.plan_hash:
        raise Stale("the plan has changed since you read it; read it again, then decide", reason="PLAN_CHANGED")
    if vote.approved and any(identity(known.operator) == operator for known in approval.votes):
        raise Refused(f"{vote.operator} has approved already; it takes another person", reason="APPROVED_TWICE")
    if vote.approved and approval.status is Status.APPROVED:
        raise Refused("it has been approved already", reason="APPROVED_ALREADY")
