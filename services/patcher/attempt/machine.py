"""The machine of an attempt: what follows from each observation in each state.

Rule: before a permit everything can be called off; after it only the agent's word ends the attempt. An observation
that says nothing new, or comes too late to matter, changes nothing.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from services.patcher.attempt import receipts
from services.patcher.attempt.model import (
    GRACE,
    HELD_LIMIT,
    UNPERMITTED,
    Attempt,
    Change,
    Errand,
    ErrandKind,
    Fact,
    State,
    Told,
)
from services.patcher.attempt.observations import (
    CancelRequested,
    CommandFinished,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    Gated,
    Gone,
    Granted,
    Judged,
    Observation,
    Permitted,
    Purpose,
    Rejected,
    RollbackRequested,
    Seen,
    StagingFinished,
    StagingLost,
    Stopped,
)
from services.patcher.attempt.transitions import (
    called_off,
    cancel,
    commit,
    fail,
    issue_health_check,
    move,
    refuse,
    roll_back,
    switch,
)
from services.patcher.policy import Action, Allow, Ask, Hold, Refuse, TakeBack
from services.patcher.verdict import Probe, Result

WATCHED = frozenset({State.PROBATION, State.COMMITTING})


def begin(attempt: Attempt, gated: Gated, now: datetime) -> Change:
    """The first change of a new attempt; one that is refused at once was never created for anybody else."""
    change = next(attempt, gated, now)
    if change.attempt.state is State.REFUSED:
        return change
    created = Fact(Told.CREATED, f"{attempt.action} {attempt.target}".strip() + f" with {attempt.confidence:.2f}")
    return replace(change, facts=(created, *change.facts))


def stillborn(attempt: Attempt, now: datetime, told: Told, failure: str, reason: str) -> Change:
    """An attempt that ends as it is created, since what it is about is not there any more."""
    return fail(attempt, now, failure, reason) if told is Told.FAILED else cancel(attempt, now, "patcher", reason)


def next(attempt: Attempt, observation: Observation, now: datetime) -> Change:  # noqa: A001, C901
    """The attempt after the observation, the facts to tell and the errands to send."""
    match observation:
        case Gated():
            return _gated(attempt, observation, now)
        case Granted() | Rejected() | Stopped():
            return _people(attempt, observation, now)
        case StagingFinished():
            return _staged(attempt, observation, now)
        case StagingLost():
            return (
                fail(attempt, now, "staging_lost", observation.reason)
                if _is(attempt, State.STAGING)
                else _same(attempt)
            )
        case CommandIssued():
            return _issued(attempt, observation)
        case CommandLost():
            return _lost(attempt, observation, now)
        case Permitted():
            return _permitted(attempt, observation, now)
        case CommandFinished():
            return receipts.heard(attempt, observation, now)
        case Judged():
            return _judged(attempt, observation, now)
        case Seen():
            return receipts.seen(attempt, observation, now)
        case Gone():
            return receipts.gone(attempt, observation, now)
        case DeadlinePassed():
            return _deadline(attempt, now)
        case CancelRequested():
            return _cancel(attempt, observation, now)
        case RollbackRequested():
            return _taken_back(attempt, observation, now)
        case _:
            assert_never(observation)


def _same(attempt: Attempt) -> Change:
    return Change(attempt)


def _is(attempt: Attempt, *states: State) -> bool:
    return attempt.state in states


def _gated(attempt: Attempt, gated: Gated, now: datetime) -> Change:
    if not _is(attempt, State.PENDING, State.STAGED):
        return _same(attempt)
    answer = gated.answer
    match answer:
        case Refuse():
            return refuse(attempt, now, answer.gate, answer.reason)
        case Hold():
            if attempt.held_by == answer.gate:
                return _same(attempt)
            held = (Fact(Told.HELD, answer.reason, gate=answer.gate),)
            deadline = now + HELD_LIMIT if not attempt.held_by else attempt.deadline
            return move(attempt, now, attempt.state, "held", answer.reason, deadline, held, held_by=answer.gate)
        case Allow():
            if _is(attempt, State.PENDING) and gated.needs_staging and attempt.action is not Action.RESTART:
                return _stage(attempt, now)
            return switch(replace(attempt, plan=gated.plan), now)
        case Ask():
            if _is(attempt, State.PENDING) and gated.needs_staging and attempt.action is not Action.RESTART:
                return _stage(attempt, now)
            until = now + answer.within + GRACE
            return move(
                attempt, now, State.AWAITING_APPROVAL, "asked", answer.reason, until, held_by="", plan=gated.plan
            )
        case TakeBack():
            # Nothing was switched that could be taken back.
            return _same(attempt)
        case _:
            assert_never(answer)


def _people(attempt: Attempt, word: Granted | Rejected | Stopped, now: datetime) -> Change:
    match word:
        case Granted():
            return _granted(attempt, word, now)
        case Rejected():
            waits = _is(attempt, State.AWAITING_APPROVAL, State.STAGED, State.APPLYING) and not attempt.permitted
            return (
                refuse(attempt, now, "APPROVAL", f"rejected by {word.actor}: {word.reason}")
                if waits
                else _same(attempt)
            )
        case Stopped():
            if not _is(attempt, State.APPLYING) or attempt.permitted:
                return _same(attempt)
            held = (Fact(Told.HELD, word.reason, gate=word.gate),)
            back = called_off(attempt, word.reason)
            until = now + HELD_LIMIT
            return move(attempt, now, State.STAGED, "stopped", word.reason, until, held, back, held_by=word.gate)


def _granted(attempt: Attempt, granted: Granted, now: datetime) -> Change:
    if not _is(attempt, State.AWAITING_APPROVAL):
        return _same(attempt)
    match granted.answer:
        case Refuse(gate, reason):
            return refuse(attempt, now, gate, reason)
        case Hold(gate, reason):
            held = (Fact(Told.HELD, reason, gate=gate),)
            known = replace(attempt, plan=granted.plan)
            return move(known, now, State.STAGED, "approved", reason, now + HELD_LIMIT, held, held_by=gate)
        case Allow():
            return switch(replace(attempt, plan=granted.plan), now)
        case Ask(within=within, reason=reason) if granted.plan != attempt.plan:
            # The plan is another one by now, and people are asked anew.
            until = now + within + GRACE
            return move(attempt, now, State.AWAITING_APPROVAL, "asked again", reason, until, plan=granted.plan)
        case _:
            return _same(attempt)


def _stage(attempt: Attempt, now: datetime) -> Change:
    until = now + timedelta(seconds=attempt.bounds.staging_timeout) + 2 * GRACE
    errand = Errand(ErrandKind.STAGE, f"{attempt.id}/stage", {"digest": attempt.digest})
    with_it = f" with configuration {attempt.configuration}" if attempt.configuration else ""
    reason = f"the sandbox runs {attempt.package} {attempt.to_release}{with_it}"
    return move(attempt, now, State.STAGING, "allowed", reason, until, errands=(errand,), held_by="")


def _staged(attempt: Attempt, finished: StagingFinished, now: datetime) -> Change:
    if not _is(attempt, State.STAGING):
        return _same(attempt)
    result = finished.result
    summary = f"{result.tests_passed}/{result.tests_run} tests passed"
    known = replace(attempt, staging=result)
    told = (Fact(Told.STAGED, summary),)
    if not result.passed:
        why = f"{summary}: {result.failures[0]}" if result.failures else summary
        return Change(known, told).then(fail(known, now, "staging_failed", why))
    return move(known, now, State.STAGED, "staging passed", summary, now + HELD_LIMIT, told)


def _issued(attempt: Attempt, issued: CommandIssued) -> Change:
    if issued.purpose is not Purpose.SWITCH or issued.number != attempt.tries:
        return _same(attempt)
    known = replace(attempt, command=issued.command, generation=issued.generation, fence=issued.fence)
    if _is(attempt, State.CANCELLED, State.FAILED, State.REFUSED, State.STAGED):
        # It was called off, or stopped, while the command was being written down.
        return Change(attempt, errands=(receipts.withdraw(known, attempt.reason),))
    if attempt.command == issued.command or not _is(attempt, State.APPLYING):
        return _same(attempt)
    return Change(known)


def _lost(attempt: Attempt, lost: CommandLost, now: datetime) -> Change:
    current = lost.purpose is Purpose.SWITCH and lost.number == attempt.tries
    if current and _is(attempt, State.APPLYING) and not attempt.permitted:
        return fail(attempt, now, "command_not_issued", lost.reason)
    # A commit or rollback that never left: the agent reverts by itself, and the deadline sees to the rest.
    return _same(attempt)


def _permitted(attempt: Attempt, permitted: Permitted, now: datetime) -> Change:
    if not _is(attempt, State.APPLYING) or attempt.permitted:
        return _same(attempt)
    if attempt.command not in {"", permitted.command}:
        return _same(attempt)
    known = replace(
        attempt,
        command=permitted.command,
        generation=permitted.generation,
        fence=permitted.fence,
        permitted=True,
        permit_time=now,
    )
    return move(known, now, State.APPLYING, "permitted", "the switch is authorised", known.last_word)


def _judged(attempt: Attempt, judged: Judged, now: datetime) -> Change:
    if not _is(attempt, State.PROBATION):
        return _same(attempt)
    verdict = judged.verdict
    known = replace(attempt, verdict=verdict)
    if verdict.result is Result.FAIL:
        return roll_back(known, now, "judged", verdict.explanation)
    if now > attempt.last_commit:
        return roll_back(known, now, "judged", f"too late to commit: {verdict.explanation}")
    if verdict.result is Result.PASS:
        return commit(known, now, verdict.explanation)
    if attempt.deadline and now >= attempt.deadline and attempt.probe is Probe.NOT_ASKED:
        return _extend(known, now, verdict.explanation)
    return Change(known)


def _extend(attempt: Attempt, now: datetime, reason: str) -> Change:
    errands = (issue_health_check(attempt),)
    return move(
        attempt, now, State.PROBATION, "extended", reason, attempt.last_commit, errands=errands, probe=Probe.ASKED
    )


def _deadline(attempt: Attempt, now: datetime) -> Change:
    if attempt.deadline is None or now < attempt.deadline:
        return _same(attempt)
    if attempt.state in UNPERMITTED - {State.STAGING}:
        waited = f" for {attempt.held_by}" if attempt.held_by else ""
        return cancel(attempt, now, "patcher", f"it waited too long{waited}")
    if _is(attempt, State.STAGING):
        return fail(attempt, now, "staging_timeout", "the sandbox gave no result in time")
    if _is(attempt, State.APPLYING) and not attempt.permitted:
        return fail(attempt, now, "command_expired", "the agent did not ask for a permit in time")
    if _is(attempt, State.PROBATION):
        if attempt.probe is Probe.NOT_ASKED and now < attempt.last_commit:
            return _extend(attempt, now, "the evidence is insufficient")
        return roll_back(attempt, now, "deadline", "no verdict in time")
    if _is(attempt, State.APPLYING, State.COMMITTING, State.ROLLING_BACK):
        return receipts.unconfirmed(attempt, now)
    return _same(attempt)


def _cancel(attempt: Attempt, wish: CancelRequested, now: datetime) -> Change:
    waiting = attempt.state in UNPERMITTED or (_is(attempt, State.APPLYING) and not attempt.permitted)
    return cancel(attempt, now, wish.actor, wish.reason) if waiting else _same(attempt)


def _taken_back(attempt: Attempt, wish: RollbackRequested, now: datetime) -> Change:
    if attempt.state in UNPERMITTED or (_is(attempt, State.APPLYING) and not attempt.permitted):
        return cancel(attempt, now, wish.actor, wish.reason)
    if attempt.other_slot:
        return _same(attempt)
    if attempt.state in WATCHED or _is(attempt, State.APPLYING, State.UNCONFIRMED, State.SUCCESS):
        return roll_back(attempt, now, "rollback requested", wish.reason, actor=wish.actor)
    return _same(attempt)
