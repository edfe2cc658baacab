"""The transitions of a rollout: into each state, with its deadline, its fact and its effects.

Rule: whoever enters a state through here leaves with that state's deadline set, its fact recorded and its
history written.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.patcher.rollout import explanations
from services.patcher.rollout.concurrency import Concurrency, headroom
from services.patcher.rollout.judging import Judgement, judge
from services.patcher.rollout.members import MemberState, roll_back_waves
from services.patcher.rollout.model import (
    FINAL,
    CancelUnpermitted,
    Change,
    Effect,
    Fact,
    RollBack,
    Rollout,
    RolloutEvent,
    Scope,
    StartMembers,
    State,
    Transition,
)
from services.patcher.sequential import Counts
from services.patcher.verdict import Result


def then(first: Change, second: Change) -> Change:
    """One change followed by another that started from its rollout."""
    return replace(
        second,
        member=second.member or first.member,
        facts=first.facts + second.facts,
        effects=first.effects + second.effects,
        transitions=first.transitions + second.transitions,
    )


def move(
    rollout: Rollout,
    now: datetime,
    state: State,
    observation: str,
    reason: str,
    lasts: timedelta | None,
    facts: tuple[Fact, ...] = (),
    effects: tuple[Effect, ...] = (),
    **changes: Any,
) -> Change:
    """The rollout in a state, with its history."""
    end = (rollout.end_time or now) if state in FINAL else None
    deadline = None if lasts is None else now + lasts
    moved = replace(
        rollout, state=state, reason=reason, deadline_time=deadline, update_time=now, end_time=end, **changes
    )
    return Change(moved, None, facts, effects, (Transition(rollout.state, state, moved.wave, observation, reason),))


def start_wave(rollout: Rollout, now: datetime, number: int) -> Change:
    """A wave begins, with a control group of its own; the pace goes on as it was."""
    planned = rollout.tallies[number - 1].planned
    reason = f"wave {number} of {len(rollout.tallies)} begins: {planned} plugins"
    fact = (Fact(RolloutEvent.WAVE_STARTED, reason, number),)
    change = move(
        rollout, now, State.RUNNING, "wave", reason, rollout.bounds.stall, fact,
        wave=number, control=Counts(), judgement=None, doubted=False, waited=False,
    )  # fmt: skip
    return then(change, continue_wave(change.rollout, now))


def continue_wave(rollout: Rollout, now: datetime) -> Change:
    """What a running wave does next: start more, or soak when everything has settled."""
    if rollout.waiting or rollout.in_flight:
        most = min(rollout.waiting, headroom(rollout.concurrency, rollout.budget, rollout.in_flight))
        return Change(rollout, effects=(StartMembers(rollout.wave, most),) if most else ())
    return soak(rollout, now)


def soak(rollout: Rollout, now: datetime) -> Change:
    """The wave is out; now time must pass."""
    seconds = rollout.bounds.soak.total_seconds()
    reason = f"wave {rollout.wave} is out and soaks for {seconds:g} s"
    change = move(rollout, now, State.SOAKING, "settled", reason, rollout.bounds.soak)
    return change if seconds else then(change, assess(change.rollout, now))


def assess(rollout: Rollout, now: datetime) -> Change:
    """The wave has soaked: on to the next, to the end, or to a person."""
    judgement = judged(rollout)
    rollout = replace(rollout, judgement=judgement)
    if judgement.result is Result.FAIL:
        return halt(rollout, now, judgement)
    watched = rollout.tallies[rollout.wave - 1].of(MemberState.WATCHED)
    if judgement.result is Result.INSUFFICIENT and watched and not rollout.waited and not judgement.doubtful:
        reason = f"wave {rollout.wave} waits for proof of {watched} plugins that had no traffic when they committed"
        return move(rollout, now, State.SOAKING, "unproven", reason, rollout.bounds.stall, waited=True)
    if judgement.result is Result.INSUFFICIENT:
        return pause(rollout, now, "", explanations.insufficient(rollout, judgement), doubted=True)
    fact = Fact(RolloutEvent.WAVE_PASSED, explanations.passed(rollout, judgement), rollout.wave)
    return then(Change(rollout, facts=(fact,)), advance(rollout, now))


def advance(rollout: Rollout, now: datetime) -> Change:
    """The next wave, or the end."""
    if rollout.wave < len(rollout.tallies):
        return start_wave(rollout, now, rollout.wave + 1)
    reason = explanations.finished(rollout)
    fact = (Fact(RolloutEvent.SUCCEEDED, reason, rollout.wave),)
    change = move(rollout, now, State.SUCCEEDED, "settled", reason, None, fact, doubted=False)
    return then(change, continue_late(change.rollout))


def judged(rollout: Rollout) -> Judgement:
    """The judgement on the current wave as things stand.

    The last of several waves needs no exposure of its own: nothing is promoted after it, and plugins that are away
    must not keep a rollout from ending.
    """
    tally = rollout.tallies[rollout.wave - 1]
    last = 1 < rollout.wave == len(rollout.tallies)
    # Who is only watched so far is exposed, and no proof of anything.
    watched = tally.of(MemberState.WATCHED)
    needed = 0 if last else max(1, min(rollout.bounds.exposure, tally.planned)) + watched
    waves = [started_waves.exposure for started_waves in rollout.started_waves]
    return judge(waves, len(rollout.tallies), rollout.control, rollout.rules, needed)


def pause(rollout: Rollout, now: datetime, actor: str, reason: str, *, doubted: bool = False) -> Change:
    """Nothing more is started, and what has no permit yet is called off."""
    fact = (Fact(RolloutEvent.PAUSED, reason, rollout.wave, actor),)
    off: tuple[Effect, ...] = (CancelUnpermitted(reason),) if rollout.count(MemberState.STARTED) else ()
    return move(
        rollout, now, State.PAUSED, "paused", reason, rollout.bounds.pause_limit, fact, off,
        concurrency=Concurrency(), doubted=doubted,
    )  # fmt: skip


def halt(rollout: Rollout, now: datetime, judgement: Judgement) -> Change:
    """The build is to blame: its wave is rolled back."""
    reason = explanations.halted(rollout, judgement)
    fact = Fact(RolloutEvent.HALTED, f"{reason}; the wave is rolled back", rollout.wave)
    rollout = replace(rollout, judgement=judgement)
    return roll_back(rollout, now, "judged", fact, Scope.WAVE, State.HALTED)


def abort(rollout: Rollout, now: datetime, actor: str, reason: str, scope: Scope) -> Change:
    """It ends early, because somebody wants it or nobody came."""
    fact = Fact(RolloutEvent.ABORTED, reason, rollout.wave, actor)
    if rollout.state is State.PENDING or scope is Scope.NOTHING:
        off: tuple[Effect, ...] = (CancelUnpermitted(reason),) if rollout.count(MemberState.STARTED) else ()
        return move(rollout, now, State.ABORTED, "aborted", reason, None, (fact,), off, closed=True)
    return roll_back(rollout, now, "aborted", fact, scope, State.ABORTED)


def roll_back(
    rollout: Rollout, now: datetime, observation: str, fact: Fact, scope: Scope, final_state: State
) -> Change:
    """Everything touched in the wave, or in all of them, goes back to what ran before."""
    first = rollout.wave if scope is Scope.WAVE else 1
    tallies = roll_back_waves(rollout.tallies, range(first, rollout.wave + 1))
    effects = (RollBack(first, rollout.wave, fact.reason),)
    change = move(
        rollout, now, State.ROLLING_BACK, observation, fact.reason, rollout.bounds.roll_back_limit, (fact,), effects,
        tallies=tallies, final_state=final_state, closed=True,
    )  # fmt: skip
    return then(change, finish_rollback(change.rollout, now))


def finish_rollback(rollout: Rollout, now: datetime, *, overdue: bool = False) -> Change:
    """The end of rolling back, once every plugin was heard or time is up."""
    if rollout.count(MemberState.ROLLING_BACK) and not overdue:
        return Change(rollout)
    fact = (Fact(RolloutEvent.ROLLED_BACK, explanations.rolled_back(rollout), rollout.wave),)
    return move(rollout, now, rollout.final_state, "rolled back", rollout.reason, None, fact)


def continue_late(rollout: Rollout) -> Change:
    """A rollout that is over brings the build to plugins that return, one at a time, until another takes over."""
    if rollout.closed or rollout.in_flight or not rollout.waiting:
        return Change(rollout)
    return Change(rollout, effects=(StartMembers(rollout.wave, 1),))


def close(rollout: Rollout, reason: str) -> Change:
    """Plugins that return no longer get this build."""
    if rollout.closed:
        return Change(rollout)
    return Change(replace(rollout, closed=True), facts=(Fact(RolloutEvent.CLOSED, reason, rollout.wave),))
