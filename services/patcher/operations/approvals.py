"""Asking people, hearing them, and telling what became of it; for attempts and rollouts alike.

Rule: an approval changes only here, under its row's lock, in the transaction that tells it. The plan people read is
kept with its hash; a plan that is another one by now voids every vote.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Refused, Stale
from libs.common.names import new_id
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import Event
from services.patcher import approvals as heart
from services.patcher import wire
from services.patcher.approvals import LIVE, Approval, Change, Plan, PlanChanged, Status, Tick, Times, Vote
from services.patcher.attempt import Attempt
from services.patcher.policy import Ask, Policy
from services.patcher.store import approvals, configurations, releases

ENDED = counter("approvals_ended_total", "Approvals that people or time decided", ("outcome",))
TOLD = counter("approval_facts_total", "What approvals told: asked, voted, reminded, escalated, ended", ("fact",))
PROPOSER = "decider"


@dataclass(frozen=True)
class About:
    """What an approval is about: `subject` is attempts/{attempt} or rollouts/{rollout}, the rest is for its facts."""

    subject: str
    plugin: str = ""
    merchant: str = ""
    incident: str = ""


def about(attempt: Attempt) -> About:
    """An attempt as the subject of an approval."""
    return About(names.attempt(attempt.id), attempt.plugin, attempt.merchant, attempt.incident)


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


def person(actor: str) -> str:
    """The bare name of who acted; operators/ann and ann are one person."""
    return actor.removeprefix("operators/")


def still(policy: Policy) -> Ask:
    """What a plan is asked about with when it waits already and the policy would not ask anybody any more."""
    why = "the policy asks nobody about this any more; who was asked still decides"
    return Ask("APPROVAL", why, policy.quorum, policy.approval_timeout)


async def ask_about(
    tx: Transaction, attempt: Attempt, policy: Policy, asked: Ask, *, cause: Event | None = None
) -> Approval:
    """Asks people about an attempt; who published the release, or wants it, wrote the plan and has no vote."""
    release = await releases.by_digest(tx, attempt.digest) if attempt.digest else None
    given = await configurations.get(tx, attempt.package, attempt.configuration) if attempt.configuration else None
    authors = [person(made.publisher) for made in (release, given) if made]
    authors += [person(attempt.author)] if attempt.author else []
    plan, proposer = plan_of(attempt, policy), "" if attempt.author else PROPOSER
    return await ask(
        tx, about(attempt), asked, plan, authors=authors, proposer=proposer, by=person(policy.updated_by), cause=cause
    )


async def ask(
    tx: Transaction,
    subject: About,
    asked: Ask,
    plan: Plan,
    *,
    authors: Iterable[str],
    proposer: str,
    by: str,
    cause: Event | None = None,
) -> Approval:
    """Asks people about a plan, or anew when it is another one by now; `by` is who changed it. Raises Invalid."""
    text, digest = heart.plan_text(plan), heart.plan_hash(plan)
    known = await approvals.living(tx, subject.subject, lock=True)
    if known is None:
        times = Times(asked.within, asked.within)
        change = heart.create(
            new_id(), subject.subject, digest, asked.quorum, authors=authors, proposer=proposer, times=times, now=tx.now
        )
    else:
        change = heart.next(known[0], PlanChanged(digest, by), tx.now)
        if change.approval.plan == digest:
            # A policy that was changed meanwhile may ask other people, and give them other times.
            times = Times(asked.within, asked.within)
            change = replace(change, approval=replace(change.approval, quorum=asked.quorum, times=times))
    await _keep(tx, subject, change, text, known[0] if known else None, cause)
    return change.approval


async def vote(tx: Transaction, subject: About, given: Vote, plan: str, *, cause: Event | None = None) -> Change:
    """Hears a person on a plan, whose hash is `plan` by now. Raises Denied, Stale or Refused, each with its reason."""
    known = await approvals.living(tx, subject.subject, lock=True) or await approvals.newest(tx, subject.subject)
    if known is None:
        raise Refused(
            f"{subject.subject} does not wait for an approval", reason="APPROVAL_NOT_ASKED", subject=subject.subject
        )
    found, text = known
    if found.status is Status.WAITING and found.plan != plan:
        # The sweep will ask people anew; until then nobody's word counts for what they have not read.
        raise Stale("the plan is another one by now; read it again, then decide", reason="PLAN_CHANGED")
    change = heart.next(found, given, tx.now)
    await _keep(tx, subject, change, text, found, cause)
    return change


async def tick(tx: Transaction, subject: About, *, cause: Event | None = None) -> Approval | None:
    """Reminds, escalates or ends what is due; None when nothing waits."""
    known = await approvals.living(tx, subject.subject, lock=True)
    if known is None:
        return None
    change = heart.next(known[0], Tick(), tx.now)
    await _keep(tx, subject, change, known[1], known[0], cause)
    return change.approval


async def void(tx: Transaction, subject: About, reason: str, *, cause: Event | None = None) -> None:
    """Ends what waits for people because its subject is over."""
    known = await approvals.living(tx, subject.subject, lock=True)
    if known is None or known[0].status is not Status.WAITING:
        return
    over = replace(known[0], status=Status.EXPIRED, reason=reason)
    await approvals.put(tx, over, known[1])
    tx.record(wire.approval_ended(subject, over.plan, "void", reason, cause))
    tx.after_commit(ENDED.labels("void").inc)


async def used(tx: Transaction, subject: About) -> None:
    """Notes that an approval was used, so that it does not expire any more."""
    await approvals.settle(tx, subject.subject)


async def _keep(
    tx: Transaction, subject: About, change: Change, text: str, before: Approval | None, cause: Event | None
) -> None:
    if change.approval != before:
        await approvals.put(tx, change.approval, text)
    for told in change.facts:
        for event in wire.approval_events(told, change.approval, before.plan if before else "", subject, cause):
            tx.record(event)
        tx.after_commit(TOLD.labels(told.event.value).inc)
    if before is not None and before.status in LIVE and change.approval.status is not before.status:
        tx.after_commit(ENDED.labels(change.approval.status.value).inc)
