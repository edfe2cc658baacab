"""The machine of an attempt: what follows from each observation in each state.

Rule: before a permit everything can be called off; after it only the agent's receipt ends the attempt. An observation
that says nothing new, or comes too late to matter, changes nothing.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from services.patcher.attempt.model import (
    GRACE,
    HELD_LIMIT,
    QUEUE_LIMIT,
    UNPERMITTED,
    Attempt,
    AttemptEvent,
    AutomationStopped,
    CancelRequested,
    Change,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    Errand,
    ErrandKind,
    Fact,
    GatesEvaluated,
    IllnessOver,
    Permitted,
    PlanApproved,
    PlanRejected,
    Purpose,
    RollbackRequested,
    StagingFinished,
    StagingLost,
    State,
    VerdictReached,
)
from services.patcher.attempt.transitions import (
    BeatSeen,
    CommandFinished,
    PluginLeft,
    cancel,
    commit,
    fail,
    healed,
    issue_health_check,
    move,
    refuse,
    reported,
    roll_back,
    switch,
    unconfirmed,
    withdraw,
    withdrawal,
)
from services.patcher.evidence import Probe
from services.patcher.policy import Action, Allow, Ask, Hold, Refuse, RollBack
from services.patcher.verdict import Result

WATCHED = frozenset({State.PROBATION, State.COMMITTING})
Observation = (
    GatesEvaluated | PlanApproved | PlanRejected | AutomationStopped | StagingFinished | StagingLost | CommandIssued
    | CommandLost | Permitted | CommandFinished | VerdictReached | BeatSeen | PluginLeft | DeadlinePassed
    | CancelRequested | IllnessOver | RollbackRequested
)  # fmt: skip


def create(attempt: Attempt, gates: GatesEvaluated, now: datetime) -> Change:
    """The first change of a new attempt; one that is refused at once was never created for anybody else."""
    change = next(attempt, gates, now)
    if change.attempt.state is State.REFUSED:
        return change
    brings = f"{attempt.action} {attempt.target}".strip()
    created = Fact(AttemptEvent.CREATED, f"{brings} with {attempt.confidence:.2f}")
    return replace(change, facts=(created, *change.facts))


def end_at_creation(attempt: Attempt, now: datetime, event: AttemptEvent, failure: str, reason: str) -> Change:
    """An attempt that ends as it is created, since what it is about is not there any more."""
    if event is AttemptEvent.FAILED:
        return fail(attempt, now, failure, reason)
    return cancel(attempt, now, "patcher", reason)


def next(attempt: Attempt, observation: Observation, now: datetime) -> Change:  # noqa: A001, C901
    """The attempt after the observation, the facts to record and the errands to send."""
    match observation:
        case GatesEvaluated():
            return _gates(attempt, observation, now)
        case PlanApproved():
            return _approved(attempt, observation, now)
        case PlanRejected(actor, reason):
            waits = _is(attempt, State.AWAITING_APPROVAL, State.STAGED, State.APPLYING) and not attempt.permitted
            return refuse(attempt, now, "APPROVAL", f"rejected by {actor}: {reason}") if waits else Change(attempt)
        case AutomationStopped():
            return _stopped(attempt, observation, now)
        case StagingFinished():
            return _staged(attempt, observation, now)
        case StagingLost(reason):
            return fail(attempt, now, "staging_lost", reason) if _is(attempt, State.STAGING) else Change(attempt)
        case CommandIssued():
            return _issued(attempt, observation)
        case CommandLost():
            return _lost(attempt, observation, now)
        case Permitted():
            return _permitted(attempt, observation, now)
        case VerdictReached():
            return _judged(attempt, observation, now)
        case CommandFinished() | BeatSeen() | PluginLeft():
            return reported(attempt, observation, now)
        case DeadlinePassed():
            return _deadline(attempt, now)
        case CancelRequested(actor, reason):
            return cancel(attempt, now, actor, reason) if _unpermitted(attempt) else Change(attempt)
        case IllnessOver(reason):
            return healed(attempt, now, reason) if _unpermitted(attempt) else Change(attempt)
        case RollbackRequested():
            return _rolled_back(attempt, observation, now)
        case _:
            assert_never(observation)


def _is(attempt: Attempt, *states: State) -> bool:
    return attempt.state in states


def _unpermitted(attempt: Attempt) -> bool:
    return attempt.state in UNPERMITTED or (_is(attempt, State.APPLYING) and not attempt.permitted)


def _gates(attempt: Attempt, gates: GatesEvaluated, now: datetime) -> Change:
    if not _is(attempt, State.PENDING, State.STAGED):
        return Change(attempt)
    reply = gates.reply
    match reply:
        case Refuse():
            return refuse(attempt, now, reply.gate, reply.reason)
        case Hold():
            if attempt.held_by == reply.gate:
                return Change(attempt)
            held = (Fact(AttemptEvent.HELD, reply.reason, gate=reply.gate),)
            deadline = now + HELD_LIMIT if not attempt.held_by else attempt.deadline_time
            return move(attempt, now, attempt.state, "held", reply.reason, deadline, held, held_by=reply.gate)
        case Allow():
            if _is(attempt, State.PENDING) and gates.needs_staging and attempt.action is not Action.RESTART:
                return _stage(attempt, now)
            return switch(replace(attempt, plan_hash=gates.plan_hash), now)
        case Ask():
            if _is(attempt, State.PENDING) and gates.needs_staging and attempt.action is not Action.RESTART:
                return _stage(attempt, now)
            until = now + reply.within + GRACE
            plan = gates.plan_hash
            return move(attempt, now, State.AWAITING_APPROVAL, "asked", reply.reason, until, plan_hash=plan)
        case RollBack():
            # Nothing was switched that could be taken back.
            return Change(attempt)
        case _:
            assert_never(reply)


def _stopped(attempt: Attempt, stopped: AutomationStopped, now: datetime) -> Change:
    if not _is(attempt, State.APPLYING) or attempt.permitted:
        return Change(attempt)
    held = (Fact(AttemptEvent.HELD, stopped.reason, gate=stopped.gate),)
    withdrawn = withdrawal(attempt, stopped.reason)
    until = now + HELD_LIMIT
    return move(attempt, now, State.STAGED, "stopped", stopped.reason, until, held, withdrawn, held_by=stopped.gate)


def _approved(attempt: Attempt, approved: PlanApproved, now: datetime) -> Change:
    if not _is(attempt, State.AWAITING_APPROVAL):
        return Change(attempt)
    match approved.reply:
        case Refuse(gate, reason):
            return refuse(attempt, now, gate, reason)
        case Hold(gate, reason):
            held = (Fact(AttemptEvent.HELD, reason, gate=gate),)
            known = replace(attempt, plan_hash=approved.plan_hash)
            return move(known, now, State.STAGED, "approved", reason, now + HELD_LIMIT, held, held_by=gate)
        case Allow():
            return switch(replace(attempt, plan_hash=approved.plan_hash), now)
        case Ask(within=within, reason=reason) if approved.plan_hash != attempt.plan_hash:
            # The plan is another one by now, and people are asked anew.
            until = now + within + GRACE
            return move(
                attempt, now, State.AWAITING_APPROVAL, "asked again", reason, until, plan_hash=approved.plan_hash
            )
        case _:
            return Change(attempt)


def _stage(attempt: Attempt, now: datetime) -> Change:
    errand = Errand(ErrandKind.STAGE, f"{attempt.id}/stage", {"digest": attempt.digest})
    with_it = f" with configuration {attempt.configuration}" if attempt.configuration else ""
    reason = f"the sandbox runs {attempt.package} {attempt.to_release}{with_it}"
    return move(attempt, now, State.STAGING, "allowed", reason, now + QUEUE_LIMIT, errands=(errand,))


def _staged(attempt: Attempt, finished: StagingFinished, now: datetime) -> Change:
    if not _is(attempt, State.STAGING):
        return Change(attempt)
    result = finished.result
    summary = f"{result.tests_passed}/{result.tests_run} tests passed"
    if result.passed and result.runs > 1:
        summary += f" in the second run; the first: {result.first_failure}"
    known = replace(attempt, staging=result)
    if not result.ran:
        return refuse(known, now, "ISOLATION", result.failures[0] if result.failures else "the isolation is too low")
    facts = (Fact(AttemptEvent.STAGED, summary),)
    if not result.passed:
        why = f"{summary}: {result.failures[0]}" if result.failures else summary
        why += " (as in the run before)" if result.runs > 1 and result.failures[:1] == (result.first_failure,) else ""
        return Change(known, facts).then(fail(known, now, "staging_failed", why))
    return move(known, now, State.STAGED, "staging passed", summary, now + HELD_LIMIT, facts)


def _issued(attempt: Attempt, issued: CommandIssued) -> Change:
    if issued.purpose is not Purpose.SWITCH or issued.number != attempt.tries:
        return Change(attempt)
    known = replace(attempt, command=issued.command, generation=issued.generation, fence=issued.fence)
    if _is(attempt, State.CANCELLED, State.FAILED, State.REFUSED, State.STAGED):
        # It was called off, or stopped, while the command was being written down.
        return Change(attempt, errands=(withdraw(known, attempt.reason),))
    if attempt.command == issued.command or not _is(attempt, State.APPLYING):
        return Change(attempt)
    return Change(known)


def _lost(attempt: Attempt, lost: CommandLost, now: datetime) -> Change:
    current = lost.purpose is Purpose.SWITCH and lost.number == attempt.tries
    if current and _is(attempt, State.APPLYING) and not attempt.permitted:
        return fail(attempt, now, "command_not_issued", lost.reason)
    # A commit or rollback that never left: the agent reverts by itself, and the deadline sees to the rest.
    return Change(attempt)


def _permitted(attempt: Attempt, permitted: Permitted, now: datetime) -> Change:
    if not _is(attempt, State.APPLYING) or attempt.permitted:
        return Change(attempt)
    if attempt.command not in {"", permitted.command}:
        return Change(attempt)
    command, generation, fence = permitted.command, permitted.generation, permitted.fence
    known = replace(attempt, command=command, generation=generation, fence=fence, permitted=True, permit_time=now)
    return move(known, now, State.APPLYING, "permitted", "the switch is authorised", known.final_receipt_deadline)


def _judged(attempt: Attempt, judged: VerdictReached, now: datetime) -> Change:
    if not _is(attempt, State.PROBATION):
        return Change(attempt)
    verdict = judged.verdict
    known = replace(attempt, verdict=verdict)
    if verdict.result is Result.FAIL:
        return roll_back(known, now, "judged", verdict.explanation)
    if now > attempt.commit_deadline:
        return roll_back(known, now, "judged", f"too late to commit: {verdict.explanation}")
    if verdict.result is Result.PASS:
        return commit(known, now, verdict.explanation)
    if attempt.deadline_time and now >= attempt.deadline_time and attempt.probe is Probe.NOT_REQUESTED:
        return _extend(known, now, verdict.explanation)
    return Change(known)


def _extend(attempt: Attempt, now: datetime, reason: str) -> Change:
    errands, until = (issue_health_check(attempt),), attempt.commit_deadline
    return move(attempt, now, State.PROBATION, "extended", reason, until, errands=errands, probe=Probe.REQUESTED)


def _deadline(attempt: Attempt, now: datetime) -> Change:
    if attempt.deadline_time is None or now < attempt.deadline_time:
        return Change(attempt)
    if attempt.state in UNPERMITTED - {State.STAGING}:
        waited = f" for {attempt.held_by}" if attempt.held_by else ""
        return cancel(attempt, now, "patcher", f"it waited too long{waited}")
    if _is(attempt, State.STAGING):
        return fail(attempt, now, "staging_timeout", "no sandbox had a result within 24 h")
    if _is(attempt, State.APPLYING) and not attempt.permitted:
        return fail(attempt, now, "command_expired", "the agent did not ask for a permit in time")
    if _is(attempt, State.PROBATION):
        if attempt.probe is Probe.NOT_REQUESTED and now < attempt.commit_deadline:
            return _extend(attempt, now, "the evidence is insufficient")
        return roll_back(attempt, now, "deadline", "no verdict in time")
    if _is(attempt, State.APPLYING, State.COMMITTING, State.ROLLING_BACK):
        return unconfirmed(attempt, now)
    return Change(attempt)


def _rolled_back(attempt: Attempt, request: RollbackRequested, now: datetime) -> Change:
    if _unpermitted(attempt):
        return cancel(attempt, now, request.actor, request.reason)
    if attempt.other_slot:
        return Change(attempt)
    if attempt.state in WATCHED or _is(attempt, State.APPLYING, State.UNCONFIRMED, State.SUCCESS):
        return roll_back(attempt, now, "rollback requested", request.reason, actor=request.actor)
    return Change(attempt)
