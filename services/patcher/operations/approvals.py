"""Approvals of attempts and rollouts: requested, voted on, ended, each saved with its facts.

Rule: an approval changes only here, under its row's lock, in the transaction that records its facts.
The plan that is read is kept with its hash; a plan that is another one by now voids every vote.
"""

from collections.abc import Iterable
from dataclasses import replace

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Refused, Stale
from libs.common.names import new_id
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.patcher import approvals as heart
from services.patcher import wire
from services.patcher.approvals import LIVE, Approval, Change, Plan, PlanChanged, Status, Subject, Tick, Times, Vote
from services.patcher.attempt import Attempt
from services.patcher.policy import Ask, Policy
from services.patcher.store import approvals, configurations, releases

ENDED = counter("approvals_ended_total", "Approvals that votes or time decided", ("outcome",))
FACTS = counter("approval_facts_total", "Facts of approvals: requested, voted, reminded, escalated, ended", ("fact",))
PROPOSER = "decider"


def subject_of(attempt: Attempt) -> Subject:
    """An attempt as the subject of an approval."""
    return Subject(names.attempt(attempt.id), attempt.plugin, attempt.merchant, attempt.incident)


def plan_of(attempt: Attempt, policy: Policy) -> Plan:
    """Everything people say yes to when they approve an attempt."""
    return Plan(
        subject=names.attempt(attempt.id),
        action=attempt.action.value,
        package=attempt.package,
        from_release=attempt.from_release,
        to_release=attempt.to_release,
        digest="" if attempt.configuration else attempt.digest,
        scope=(names.plugin(attempt.plugin),),
        policy_version=policy.version,
        config_digest=attempt.digest if attempt.configuration else "",
        rollout=attempt.rollout,
    )


def operator_id(actor: str) -> str:
    """The bare id of who acted; operators/ann and ann are one operator."""
    return actor.removeprefix("operators/")


def keep_asking(policy: Policy) -> Ask:
    """What an open approval goes on with when the policy would not ask anybody any more."""
    why = "the policy asks nobody about this any more; who was asked still decides"
    return Ask("APPROVAL", why, policy.quorum, policy.approval_timeout)


async def request_for_attempt(
    tx: Transaction, attempt: Attempt, policy: Policy, wanted: Ask, *, cause: Event | None = None
) -> Approval:
    """Requests approval of an attempt; who published what it brings, or wants it, is an author and has no vote."""
    release = await releases.by_digest(tx, attempt.digest) if attempt.digest else None
    fix = await configurations.get(tx, attempt.package, attempt.configuration) if attempt.configuration else None
    authors = [operator_id(made.publisher) for made in (release, fix) if made]
    authors += [operator_id(attempt.author)] if attempt.author else []
    proposer, by = "" if attempt.author else PROPOSER, operator_id(policy.updated_by)
    plan = plan_of(attempt, policy)
    return await request(tx, subject_of(attempt), wanted, plan, authors=authors, proposer=proposer, by=by, cause=cause)


async def request(
    tx: Transaction,
    subject: Subject,
    wanted: Ask,
    plan: Plan,
    *,
    authors: Iterable[str],
    proposer: str,
    by: str,
    cause: Event | None = None,
) -> Approval:
    """Requests approval of a plan, or anew when it is another one by now; `by` is who changed it. Raises Invalid."""
    text, digest, times = heart.plan_text(plan), heart.plan_hash(plan), Times(wanted.within, wanted.within)
    known = await approvals.live(tx, subject.name, lock=True)
    if known is None:
        change = heart.create(
            new_id(), subject.name, digest, wanted.quorum, authors=authors, proposer=proposer, times=times, now=tx.now
        )
    else:
        change = heart.next(known[0], PlanChanged(digest, by), tx.now)
        if change.approval.plan_hash == digest:
            # A policy that was changed meanwhile may ask others, and give them other times.
            change = replace(change, approval=replace(change.approval, quorum=wanted.quorum, times=times))
    await _save(tx, subject, change, text, known[0] if known else None, cause)
    return change.approval


async def vote(tx: Transaction, subject: Subject, cast: Vote, plan_hash: str, *, cause: Event | None = None) -> Change:
    """Counts a vote on the plan that has this hash by now. Raises Denied, Stale or Refused, each with its reason."""
    known = await approvals.live(tx, subject.name, lock=True) or await approvals.newest(tx, subject.name)
    if known is None:
        raise Refused(
            f"{subject.name} does not wait for an approval", reason="APPROVAL_NOT_ASKED", subject=subject.name
        )
    found, text = known
    if found.status is Status.OPEN and found.plan_hash != plan_hash:
        # The sweep will ask anew; until then no vote counts for a plan that nobody has read.
        raise Stale("the plan is another one by now; read it again, then decide", reason="PLAN_CHANGED")
    change = heart.next(found, cast, tx.now)
    await _save(tx, subject, change, text, found, cause)
    return change


async def tick(tx: Transaction, subject: Subject, *, cause: Event | None = None) -> Approval | None:
    """Reminds, escalates or ends what is due; None when nothing waits."""
    known = await approvals.live(tx, subject.name, lock=True)
    if known is None:
        return None
    change = heart.next(known[0], Tick(), tx.now)
    await _save(tx, subject, change, known[1], known[0], cause)
    return change.approval


async def withdraw(tx: Transaction, subject: Subject, reason: str, *, cause: Event | None = None) -> None:
    """Withdraws what waits for people because its subject is over; `reason` tells them why."""
    known = await approvals.live(tx, subject.name, lock=True)
    if known is None or known[0].status is not Status.OPEN:
        return
    over = replace(known[0], status=Status.EXPIRED, reason=reason)
    await approvals.put(tx, over, known[1], subject.merchant)
    tx.record(wire.approval_ended(subject, over.plan_hash, "withdrawn", reason, cause))
    tx.after_commit(ENDED.labels("withdrawn").inc)


async def mark_used(tx: Transaction, subject: Subject) -> None:
    """Notes that an approval was used, so that it does not expire any more."""
    await approvals.mark_used(tx, subject.name)


async def _save(
    tx: Transaction, subject: Subject, change: Change, text: str, before: Approval | None, cause: Event | None
) -> None:
    if change.approval != before:
        await approvals.put(tx, change.approval, text, subject.merchant)
    for happened in change.facts:
        for event in wire.approval_events(
            happened, change.approval, before.plan_hash if before else "", subject, cause
        ):
            tx.record(event)
        tx.after_commit(FACTS.labels(happened.event.value).inc)
    if before is not None and before.status in LIVE and change.approval.status is not before.status:
        tx.after_commit(ENDED.labels(change.approval.status.value).inc)
