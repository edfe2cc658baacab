"""Rollout: the machine that brings a build to many plugins in waves, and takes it back when it breaks them.

Rule: a wave starts as many plugins as its pace allows, soaks when all have a result, and passes only with evidence.
Each result that speaks against the build is judged at once, in every state; guilt halts the rollout and rolls the wave
back, with one sentence that says why. What is insufficient asks a person. `next` says for every state and every
observation, also late and repeated ones, what follows.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from libs.common.errors import Invalid
from libs.common.errors import Refused as Forbidden
from services.patcher.rollout import explanations, transitions
from services.patcher.rollout.concurrency import Concurrency, after, headroom
from services.patcher.rollout.judging import Rules
from services.patcher.rollout.members import (
    COUNTED_AGAINST,
    IN_FLIGHT,
    Member,
    MemberChange,
    MemberObservation,
    MemberState,
    NotSwitched,
    Outcome,
    PluginLeft,
    Returned,
    RollbackFailed,
    RolledBack,
    Settled,
    Started,
    Switched,
    Tally,
    Unproven,
    WentOffline,
    move,
    settle,
    start,
    switch,
    watch,
)
from services.patcher.rollout.model import (
    AbortRequested,
    Approved,
    Bounds,
    BudgetChanged,
    Change,
    ControlGroupUpdated,
    Fact,
    Observation,
    OperatorRequest,
    PauseRequested,
    PromoteRequested,
    Rejected,
    ResumeRequested,
    Rollout,
    RolloutEvent,
    Scope,
    State,
    Superseded,
    Tick,
    check,
)
from services.patcher.rollout.waves import Assignment
from services.patcher.verdict import Result

WATCHED = frozenset({State.RUNNING, State.SOAKING, State.PAUSED})
TRIES = 5  # starts that came to nothing before a plugin is left out
S = MemberState


def create(
    rollout: str,
    package: str,
    target: str,
    places: Iterable[Assignment],
    now: datetime,
    *,
    budget: int = 16,
    rules: Rules | None = None,
    bounds: Bounds | None = None,
) -> tuple[Change, tuple[Member, ...]]:
    """A new rollout, pending, and its members in the order in which they were drawn."""
    rules, bounds = rules or Rules(), bounds or Bounds()
    check(budget, rules, bounds)
    members = tuple(Member(one.plugin, one.wave, S.WAITING if one.online else S.OFFLINE) for one in places)
    if not members:
        raise Invalid(
            "the rollout reaches no plugin: no plugin of the package is known, or all have the release already",
            reason="ROLLOUT_EMPTY",
            field="rollout.plugins",
        )
    tallies = [Tally() for _ in range(max(member.wave for member in members))]
    for member in members:
        tally = tallies[member.wave - 1]
        counts = {**tally.counts, member.state: tally.counts.get(member.state, 0) + 1}
        tallies[member.wave - 1] = replace(tally, planned=tally.planned + (member.state is S.WAITING), counts=counts)
    deadline = now + bounds.start_within
    made = Rollout(rollout, package, target, tuple(tallies), now, now, deadline, budget, rules, bounds)
    sizes = ", ".join(str(tally.planned) for tally in tallies)
    fact = Fact(RolloutEvent.CREATED, f"{target} for {len(members)} plugins in waves of {sizes}", 1)
    return Change(made, facts=(fact,)), members


def next(rollout: Rollout, observation: Observation, now: datetime) -> Change:  # noqa: A001 - the design's word
    """What follows from an observation. Refused (`libs.common.errors`) for a wish that the state forbids."""
    match observation:
        case Tick():
            return _tick(rollout, now)
        case ControlGroupUpdated(control):
            return _judged(replace(rollout, control=control), now) if rollout.state in WATCHED else Change(rollout)
        case Approved():
            return transitions.start_wave(rollout, now, 1) if rollout.state is State.PENDING else Change(rollout)
        case Rejected(actor, reason):
            pending = rollout.state is State.PENDING
            return transitions.abort(rollout, now, actor, reason, Scope.NOTHING) if pending else Change(rollout)
        case Superseded(by):
            return _superseded(rollout, by)
        case PauseRequested() | ResumeRequested() | PromoteRequested() | AbortRequested() | BudgetChanged():
            return _request(rollout, observation, now)
        case _:
            return _member_seen(rollout, observation, now)


def _tick(rollout: Rollout, now: datetime) -> Change:
    due = rollout.deadline_time is not None and now >= rollout.deadline_time
    match rollout.state:
        case State.PENDING if due:
            return transitions.abort(rollout, now, "", "nobody let it begin in time", Scope.NOTHING)
        case State.RUNNING:
            stalled = due and (rollout.waiting or rollout.in_flight)
            paused = (
                transitions.pause(rollout, now, "", explanations.stalled(rollout), doubted=True) if stalled else None
            )
            return paused or transitions.continue_wave(rollout, now)
        case State.SOAKING if due:
            return transitions.assess(rollout, now)
        case State.PAUSED if due:
            scope = Scope.WAVE if rollout.doubted else Scope.NOTHING
            return transitions.abort(rollout, now, "", f"nobody came while it was paused: {rollout.reason}", scope)
        case State.ROLLING_BACK:
            return transitions.finish_rollback(rollout, now, overdue=due)
        case State.SUCCEEDED:
            return transitions.continue_late(rollout)
    return Change(rollout)


def _judged(rollout: Rollout, now: datetime) -> Change:
    judgement = transitions.judged(rollout)
    return _heed(replace(rollout, judgement=judgement), now)


def _heed(rollout: Rollout, now: datetime) -> Change:
    """What the latest judgement asks for at once."""
    judgement = rollout.judgement
    if judgement is not None and judgement.result is Result.FAIL:
        return transitions.halt(rollout, now, judgement)
    if judgement is not None and judgement.common_cause and rollout.state is not State.PAUSED:
        return transitions.pause(rollout, now, "", explanations.insufficient(rollout, judgement), doubted=True)
    return Change(rollout)


def _superseded(rollout: Rollout, by: str) -> Change:
    if rollout.state in {State.SUCCEEDED, State.HALTED, State.ABORTED}:
        return transitions.close(rollout, f"{by} takes its place")
    raise _forbidden(rollout, "superseded", "abort it first")


def _request(rollout: Rollout, request: OperatorRequest, now: datetime) -> Change:
    match request:
        case AbortRequested(actor, reason, scope):
            if rollout.state in WATCHED | {State.PENDING}:
                return transitions.abort(rollout, now, actor, reason, scope)
            if rollout.state in {State.ROLLING_BACK, State.ABORTED}:
                return Change(rollout)
            raise _forbidden(rollout, "aborted", "roll the release back instead")
        case PauseRequested(actor, reason):
            if rollout.state in {State.RUNNING, State.SOAKING}:
                return transitions.pause(rollout, now, actor, reason)
            if rollout.state is State.PAUSED:
                return Change(rollout)
            raise _forbidden(rollout, "paused", "only a running or soaking one can be")
        case ResumeRequested():
            return _resumed(rollout, request, now)
        case PromoteRequested():
            return _promoted(rollout, request, now)
        case BudgetChanged(budget, actor, reason):
            check(budget, rollout.rules, rollout.bounds)
            fact = Fact(
                RolloutEvent.BUDGET_CHANGED, f"budget {rollout.budget} becomes {budget}: {reason}", rollout.wave, actor
            )
            changed = Change(replace(rollout, budget=budget, update_time=now), facts=(fact,))
            if rollout.state is not State.RUNNING:
                return changed
            return transitions.then(changed, transitions.continue_wave(changed.rollout, now))


def _resumed(rollout: Rollout, request: ResumeRequested, now: datetime) -> Change:
    if rollout.state in {State.RUNNING, State.SOAKING}:
        return Change(rollout)
    if rollout.state is not State.PAUSED:
        raise _forbidden(rollout, "resumed", "only a paused one can be")
    fact = (Fact(RolloutEvent.RESUMED, request.reason, rollout.wave, request.actor),)
    stall = rollout.bounds.stall
    change = transitions.move(
        rollout,
        now,
        State.RUNNING,
        "resumed",
        request.reason,
        stall,
        fact,
        concurrency=Concurrency(),
        doubted=False,
        waited=False,
    )
    return transitions.then(change, transitions.continue_wave(change.rollout, now))


def _promoted(rollout: Rollout, request: PromoteRequested, now: datetime) -> Change:
    if rollout.state not in {State.SOAKING, State.PAUSED}:
        raise _forbidden(rollout, "promoted", "only a soaking or paused one can be")
    if rollout.in_flight:
        raise _forbidden(rollout, "promoted", f"wait for the {rollout.in_flight} plugins in flight")
    if rollout.waiting and rollout.wave == len(rollout.tallies):
        raise _forbidden(rollout, "promoted", "it is in its last wave and plugins still wait: resume it")
    fact = Fact(RolloutEvent.PROMOTED, request.reason, rollout.wave, request.actor)
    return transitions.then(Change(rollout, facts=(fact,)), transitions.advance(rollout, now))


def _member_seen(rollout: Rollout, seen: MemberObservation, now: datetime) -> Change:
    moved = _moved(rollout, seen)
    if moved is None:
        return Change(rollout, seen.member)
    rollout = replace(rollout, tallies=moved.tallies, update_time=now)
    if isinstance(seen, PluginLeft) and moved.member.state is S.SKIPPED and not moved.member.switch_number:
        rollout = _smaller(rollout, seen.member)
    change = Change(rollout, moved.member)
    if moved.settled:
        change = transitions.then(change, _counted(rollout, moved, now))
    return transitions.then(change, _follow(change.rollout, now))


def _smaller(rollout: Rollout, member: Member) -> Rollout:
    """A plugin that left is no longer planned for; one that was offline never was."""
    tally = rollout.tallies[member.wave - 1]
    planned = max(0, tally.planned - (member.state is not S.OFFLINE))
    tallies = list(rollout.tallies)
    tallies[member.wave - 1] = replace(tally, planned=planned)
    return replace(rollout, tallies=tuple(tallies))


def _counted(rollout: Rollout, moved: MemberChange, now: datetime) -> Change:
    """A result came: it is judged, and the pace follows it."""
    if rollout.state is State.SUCCEEDED:
        judgement = transitions.judged(rollout)
        bad = judgement.doubtful or judgement.result is Result.FAIL
        closed = (
            transitions.close(rollout, "plugins that returned late broke") if moved.counted_against and bad else None
        )
        return closed or Change(rollout)
    if rollout.state not in WATCHED:
        return Change(rollout)
    judgement = transitions.judged(rollout)
    concurrency = after(
        rollout.concurrency,
        counted_against=moved.counted_against,
        doubtful=judgement.doubtful,
        budget=rollout.budget,
        floor=rollout.rules.floor,
    )
    running = rollout.state is State.RUNNING
    deadline = now + rollout.bounds.stall if running else rollout.deadline_time
    rollout = replace(rollout, judgement=judgement, concurrency=concurrency, deadline_time=deadline)
    return _heed(rollout, now) if moved.counted_against else Change(rollout)


def _follow(rollout: Rollout, now: datetime) -> Change:
    match rollout.state:
        case State.RUNNING:
            return transitions.continue_wave(rollout, now)
        case State.SOAKING if rollout.waited and transitions.judged(rollout).result is Result.PASS:
            return transitions.assess(rollout, now)
        case State.SOAKING if rollout.waiting and rollout.wave == len(rollout.tallies):
            # The last wave has no later one to join, so it opens again.
            reason = f"wave {rollout.wave} opens again: {rollout.waiting} plugins returned"
            change = transitions.move(rollout, now, State.RUNNING, "returned", reason, rollout.bounds.stall)
            return transitions.then(change, transitions.continue_wave(change.rollout, now))
        case State.ROLLING_BACK:
            return transitions.finish_rollback(rollout, now)
        case State.SUCCEEDED:
            return transitions.continue_late(rollout)
    return Change(rollout)


def _moved(rollout: Rollout, seen: MemberObservation) -> MemberChange | None:
    """The member and the tallies after the word; None when it says nothing new."""
    member, tallies = seen.member, rollout.tallies
    match seen:
        case Started() if member.state is S.WAITING and member.wave <= rollout.wave and _may_start(rollout):
            return start(member, tallies, rollout.wave)
        case Switched() if member.state is S.STARTED:
            return switch(member, tallies)
        case Settled(_, outcome, reason):
            return _settled(rollout, member, outcome, reason)
        case Unproven(_, reason) if member.state in {*IN_FLIGHT, S.WATCHED}:
            return watch(member, tallies, reason)
        case NotSwitched(_, reason, retry) if member.state in IN_FLIGHT:
            retry = retry and member.tries < TRIES
            return move(member, tallies, S.WAITING if retry else S.SKIPPED, reason)
        case NotSwitched(_, reason) if member.state is S.ROLLING_BACK:
            return move(member, tallies, S.ROLLED_BACK, reason)
        case WentOffline() if member.state in {S.WAITING, S.STARTED}:
            return move(member, tallies, S.OFFLINE, "not connected")
        case Returned() if member.state is S.OFFLINE:
            return move(member, tallies, S.WAITING)
        case PluginLeft(_, reason) if member.state in {
            S.WAITING,
            S.OFFLINE,
            *IN_FLIGHT,
            S.ROLLING_BACK,
            S.ROLLBACK_FAILED,
        }:
            return move(member, tallies, S.SKIPPED, reason)
        case RolledBack() if member.state in {S.ROLLING_BACK, S.ROLLBACK_FAILED}:
            return move(member, tallies, S.ROLLED_BACK)
        case RollbackFailed(_, reason) if member.state is S.ROLLING_BACK:
            return move(member, tallies, S.ROLLBACK_FAILED, reason)
    return None


def _settled(rollout: Rollout, member: Member, outcome: Outcome, reason: str) -> MemberChange | None:
    tallies = rollout.tallies
    if member.state in {S.ROLLING_BACK, S.ROLLBACK_FAILED}:
        # Healthy now is no end: the rollback it was sent follows.
        ends = {Outcome.REVERTED: S.ROLLED_BACK, Outcome.BROKEN: S.ROLLBACK_FAILED, Outcome.SILENT: S.ROLLBACK_FAILED}
        state = ends.get(outcome, member.state)
        return move(member, tallies, state, reason) if state is not member.state else None
    late = member.state in {S.SILENT, S.BROKEN} and outcome in {Outcome.HEALTHY, Outcome.REVERTED}
    relapsed = member.state is S.HEALTHY and outcome.state in COUNTED_AGAINST
    if member.state in {*IN_FLIGHT, S.WATCHED} or late or relapsed:
        return settle(member, tallies, outcome.state, reason)
    return None


def _may_start(rollout: Rollout) -> bool:
    if rollout.state is State.SUCCEEDED:
        return not rollout.closed and not rollout.in_flight
    return rollout.state is State.RUNNING and headroom(rollout.concurrency, rollout.budget, rollout.in_flight) > 0


def _forbidden(rollout: Rollout, verb: str, remedy: str) -> Forbidden:
    return Forbidden(
        f"rollout {rollout.id} is {rollout.state.value} and cannot be {verb}: {remedy}",
        reason="ROLLOUT_STATE",
        field="name",
        rollout=rollout.id,
        state=rollout.state.value,
    )
