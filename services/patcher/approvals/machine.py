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
    Change,
    Fact,
    Observation,
    PlanChanged,
    Standing,
    Tick,
    Times,
    Told,
)
from services.patcher.approvals.quorum import Need, Vote, asked_for, check, enough, identity, invalid, may

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(days=7)


def ask(
    id: str,  # noqa: A002 - the word of the design
    subject: str,
    plan: str,
    need: Need,
    *,
    authors: Iterable[str],
    proposer: str,
    times: Times,
    now: datetime,
) -> Change:
    """Asks people about a plan, given its hash. Raises Invalid when the need makes no sense or the hash is missing."""
    check(need)
    if not plan:
        raise invalid("plan", "a plan is known by its hash", "compute it from plan_text")
    if not SHORTEST <= times.answer <= LONGEST or not SHORTEST <= times.lasts <= LONGEST:
        raise invalid("times", "people need 1 minute to 7 days", "leave it out for 1 hour")
    made = Approval(
        id, subject, plan, need, frozenset(identity(author) for author in authors), identity(proposer), times,
        create_time=now, expire_time=now + times.answer, asked_time=now,
    )  # fmt: skip
    return Change(made, (Fact(Told.REQUESTED, f"{asked_for(need)} must approve plan {plan[:12]}"),))


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
        approval.standing is Standing.APPROVED
        and approval.plan == plan
        and now < approval.expire_time
        and enough(approval.need, approval.votes)
    )


def _tick(approval: Approval, now: datetime) -> Change:
    if approval.standing not in LIVE:
        return Change(approval)
    if now >= approval.expire_time:
        answered = approval.standing is Standing.APPROVED
        why = "it was approved and not used in time" if answered else f"nobody answered within {approval.times.answer}"
        if approval.votes and not answered:
            why = f"only {len(approval.votes)} of {approval.need.quorum} approved within {approval.times.answer}"
        over = replace(approval, standing=Standing.EXPIRED, reason=why)
        return Change(over, (Fact(Told.EXPIRED, why),))
    if approval.standing is Standing.APPROVED:
        return Change(approval)
    missing = f"{len(approval.votes)} of {approval.need.quorum} have approved, it expires at {approval.expire_time}"
    if not approval.escalated and now >= approval.asked_time + approval.times.escalate:
        return Change(replace(approval, reminded=True, escalated=True), (Fact(Told.ESCALATED, missing),))
    if not approval.reminded and now >= approval.asked_time + approval.times.remind:
        return Change(replace(approval, reminded=True), (Fact(Told.REMINDED, missing),))
    return Change(approval)


def _changed(passed: Change, changed: PlanChanged, now: datetime) -> Change:
    approval = passed.approval
    if approval.standing not in LIVE or changed.plan == approval.plan:
        return passed
    if not changed.plan:
        raise invalid("plan", "a plan is known by its hash", "compute it from plan_text")
    why = f"the plan changed to {changed.plan[:12]}, {len(approval.votes)} approvals are void"
    anew = replace(
        approval,
        plan=changed.plan,
        authors=approval.authors | {identity(changed.author)},
        standing=Standing.WAITING,
        votes=(),
        reminded=False,
        escalated=False,
        asked_time=now,
        expire_time=now + approval.times.answer,
        reason="",
    )
    return Change(anew, (*passed.facts, Fact(Told.VOIDED, why, changed.author)))


def _voted(passed: Change, vote: Vote, now: datetime) -> Change:
    approval = passed.approval
    if _counted(approval, vote):
        return passed
    _admit(approval, vote)
    if not vote.yes:
        why = vote.reason or "no reason given"
        over = replace(
            approval,
            standing=Standing.REJECTED,
            votes=(*approval.votes, vote),
            reason=f"rejected by {vote.person}: {why}",
        )
        return Change(over, (*passed.facts, Fact(Told.REJECTED, why, vote.person)))
    known = replace(approval, votes=(*approval.votes, vote))
    said = Fact(Told.VOTED, f"{len(known.votes)} of {known.need.quorum}: {vote.reason}".rstrip(": "), vote.person)
    if not enough(known.need, known.votes):
        return Change(known, (*passed.facts, said))
    granted = replace(known, standing=Standing.APPROVED, expire_time=now + known.times.lasts)
    names = ", ".join(each.person for each in known.votes)
    return Change(granted, (*passed.facts, said, Fact(Told.GRANTED, f"approved by {names}", vote.person)))


def _counted(approval: Approval, vote: Vote) -> bool:
    return bool(vote.request) and any(
        (known.request, identity(known.person), known.yes, known.plan)
        == (vote.request, identity(vote.person), vote.yes, vote.plan)
        for known in approval.votes
    )


def _admit(approval: Approval, vote: Vote) -> None:
    person = identity(vote.person)
    if approval.standing is Standing.EXPIRED:
        raise Refused(f"it has expired: {approval.reason}; ask again", reason="APPROVAL_EXPIRED")
    if approval.standing is Standing.REJECTED:
        raise Refused(f"it was {approval.reason}; propose another plan", reason="APPROVAL_REJECTED")
    if not person:
        raise Denied("nobody in particular cannot approve; sign in", reason="APPROVAL_ANONYMOUS")
    if person in approval.authors:
        raise Denied(f"{vote.person} wrote this plan; another person must decide", reason="APPROVAL_BY_AUTHOR")
    if person == approval.proposer:
        raise Denied(f"{vote.person} proposed this plan; a person must decide", reason="APPROVAL_BY_PROPOSER")
    if not may(approval.need, vote):
        raise Denied(f"this takes {asked_for(approval.need)}; {vote.person} is none of them", reason="APPROVAL_ROLE")
    if vote.plan != approval.plan:
        raise Stale("the plan has changed since you read it; read it again, then decide", reason="PLAN_CHANGED")
    if vote.yes and any(identity(known.person) == person for known in approval.votes):
        raise Refused(f"{vote.person} has approved already; it takes another person", reason="APPROVED_TWICE")
    if vote.yes and approval.standing is Standing.APPROVED:
        raise Refused("it has been approved already", reason="APPROVED_ALREADY")
