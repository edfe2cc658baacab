"""What no sequence of observations can do to an attempt."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.patcher import attempt as heart
from services.patcher.attempt import (
    FINAL,
    LIVE,
    UNPERMITTED,
    Attempt,
    AttemptEvent,
    BeatSeen,
    CancelRequested,
    Change,
    CommandFinished,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    ErrandKind,
    GatesEvaluated,
    Observation,
    Outcome,
    Permitted,
    PluginLeft,
    Purpose,
    RollbackRequested,
    Staged,
    StagingFinished,
    StagingLost,
    State,
    VerdictReached,
)
from services.patcher.policy import Action, Allow, Hold, Refuse
from services.patcher.verdict import Result, Verdict
from tests.unit.attempt_stories import (
    ALLOWED,
    HELD,
    NEW,
    OTHER_SLOT,
    START,
    applying,
    committing,
    gone_back,
    permitted,
    probation,
    rolling_back,
    unconfirmed,
)

EDGES = {
    State.PENDING: {State.STAGING, State.APPLYING, State.FAILED, State.CANCELLED, State.REFUSED, State.PENDING},
    State.STAGING: {State.STAGED, State.FAILED, State.CANCELLED},
    State.STAGED: {State.APPLYING, State.FAILED, State.CANCELLED, State.REFUSED, State.STAGED},
    State.APPLYING: {
        State.APPLYING, State.PROBATION, State.STAGED, State.ROLLING_BACK, State.ROLLED_BACK, State.SUCCESS,
        State.UNCONFIRMED, State.FAILED, State.CANCELLED, State.REFUSED,
    },
    State.PROBATION: {
        State.PROBATION, State.COMMITTING, State.ROLLING_BACK, State.ROLLED_BACK, State.SUCCESS, State.ROLLBACK_FAILED,
    },
    State.COMMITTING: {State.SUCCESS, State.ROLLED_BACK, State.ROLLING_BACK, State.UNCONFIRMED},
    State.ROLLING_BACK: {State.ROLLED_BACK, State.ROLLBACK_FAILED, State.UNCONFIRMED, State.SUCCESS},
    State.UNCONFIRMED: {State.SUCCESS, State.ROLLED_BACK, State.ROLLING_BACK, State.ROLLBACK_FAILED},
    State.SUCCESS: {State.ROLLING_BACK, State.ROLLBACK_FAILED},
}  # fmt: skip
PERMITTED_NEVER = frozenset({State.FAILED, State.CANCELLED, State.REFUSED})

ANSWERS = [Allow(), Hold("KILL_SWITCH", ""), Hold("PLUGIN_BUSY", ""), Refuse("SEVERITY", "")]
small = st.integers(1, 3)
# Mostly about the command the stories below begin with, so that words matter.
commands, generations, fences = st.sampled_from(["c1", "c1", "c2"]), st.sampled_from([4, 4, 3, 5]), st.integers(6, 9)
moments = st.integers(0, 900).map(lambda seconds: START + timedelta(seconds=seconds))
words = st.builds(
    CommandFinished,
    commands,
    st.sampled_from(["update", "commit", "rollback", "health_check", "restart"]),
    generations,
    fences,
    st.sampled_from(Outcome),
    st.sampled_from(["", "KILL_SWITCH", "SEVERITY", "NO_ANSWER"]),
    moments,
    st.booleans(),
)
observations = st.one_of(
    st.builds(GatesEvaluated, st.sampled_from(ANSWERS), st.booleans()),
    st.builds(StagingFinished, st.builds(Staged, st.booleans(), small, small, st.just(1.0))),
    st.builds(StagingLost, st.just("gone")),
    st.builds(CommandIssued, st.sampled_from(Purpose), small, commands, generations, fences),
    st.builds(CommandLost, st.sampled_from(Purpose), small, st.just("away")),
    st.builds(Permitted, commands, generations, fences),
    words,
    st.builds(VerdictReached, st.builds(Verdict, st.sampled_from(Result), st.just("why"))),
    st.builds(BeatSeen, st.integers(2, 6), st.just("1.2.3"), st.just("f"), moments),
    st.just(DeadlinePassed()),
    st.builds(PluginLeft, st.just("retired")),
    st.builds(CancelRequested, st.just("x"), st.just("no")),
    st.builds(RollbackRequested, st.just("x"), st.just("no")),
)  # fmt: skip
stories = st.lists(st.tuples(observations, st.sampled_from([0.0, 0.5, 5.0, 40.0, 200.0])), max_size=40)
BEGINNINGS = [
    heart.create(NEW, HELD, START).attempt,
    heart.create(replace(NEW, action=Action.RESTART), ALLOWED, START).attempt,
    heart.create(OTHER_SLOT, ALLOWED, START).attempt,
    gone_back().attempt,
    *(story().attempt for story in (applying, permitted, probation, committing, rolling_back, unconfirmed)),
]
beginnings = st.sampled_from(BEGINNINGS)


def live(attempt: Attempt) -> bool:
    return attempt.state in LIVE and attempt.state is not State.UNCONFIRMED


@settings(max_examples=600, deadline=None)
@given(beginnings, stories)
def test_no_sequence_of_observations_leads_where_it_must_not(
    attempt: Attempt, seen: list[tuple[Observation, float]]
) -> None:
    now, keys = START, list[str]()
    for observation, after in seen:
        now += timedelta(seconds=after)
        change = heart.next(attempt, observation, now)
        lawful(attempt, observation, change)
        keys += [errand.key for errand in change.errands if errand.kind is not ErrandKind.WITHDRAW_COMMAND]
        attempt = change.attempt
    assert len(keys) == len(set(keys)), "a key that comes twice is an errand that is never sent"
    for _ in range(8):
        if not live(attempt):
            break
        assert attempt.deadline_time is not None
        attempt = heart.next(attempt, DeadlinePassed(), attempt.deadline_time).attempt
    assert not live(attempt), "left alone, every attempt ends by its deadlines"


def every_observation() -> list[Observation]:
    found: list[Observation] = [GatesEvaluated(answer, flag) for answer in ANSWERS for flag in (True, False)]
    found += [StagingFinished(Staged(good, 1, 1, 1.0)) for good in (True, False)]
    found += [CommandIssued(purpose, 1, name, 4, 7) for purpose in Purpose for name in ("c1", "c2")]
    found += [CommandLost(purpose, 1, "away") for purpose in Purpose]
    found += [Permitted(name, 4, fence) for name in ("c1", "c2") for fence in (7, 8)]
    found += [
        CommandFinished(name, kind, generation, 7, outcome, detail, START, False)
        for name in ("c1", "c2")
        for kind in ("update", "commit", "rollback", "health_check")
        for generation in (3, 4, 5)
        for outcome in Outcome
        for detail in ("", "KILL_SWITCH", "SEVERITY", "NO_ANSWER")
    ]
    found += [VerdictReached(Verdict(result, "why")) for result in Result]
    found += [PluginLeft("retired")]
    found += [BeatSeen(generation, "", "", START + timedelta(hours=1)) for generation in (3, 4, 5)]
    return [*found, StagingLost("gone"), DeadlinePassed(), CancelRequested("x", "no"), RollbackRequested("x", "no")]


def lawful(before: Attempt, observation: Observation, change: Change) -> None:
    for step in change.transitions:
        assert step.to_state in EDGES.get(step.from_state, set()), (step, observation)
    if before.state is not change.attempt.state:
        assert change.transitions, "a change of state leaves a row of history"
    if before.permitted:
        assert change.attempt.permitted
        assert change.attempt.state not in PERMITTED_NEVER | UNPERMITTED, (before.state, observation)
    if live(change.attempt):
        assert change.attempt.deadline_time is not None
    if change.attempt.state in FINAL:
        assert change.attempt.end_time is not None


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda attempt: attempt.state.value)
@pytest.mark.parametrize("after", [0.0, 45.0, 3600.0])
def test_every_observation_is_lawful_in_every_state_at_every_age(beginning: Attempt, after: float) -> None:
    now = START + timedelta(seconds=after)
    for observation in every_observation():
        lawful(beginning, observation, heart.next(beginning, observation, now))


@settings(max_examples=300, deadline=None)
@given(beginnings, stories, st.integers(0, 39))
def test_an_observation_that_comes_twice_has_its_effect_once(
    attempt: Attempt, seen: list[tuple[Observation, float]], at: int
) -> None:
    now = START
    for number, (observation, after) in enumerate(seen):
        now += timedelta(seconds=after)
        attempt = heart.next(attempt, observation, now).attempt
        # A refusal answers one command; whoever repeats it after the next was sent carries the old fence.
        if number == at and not isinstance(observation, GatesEvaluated | BeatSeen | DeadlinePassed | VerdictReached):
            again = heart.next(attempt, observation, now)
            facts = [fact.event for fact in again.facts]
            assert again.attempt.state is attempt.state or AttemptEvent.APPLIED in facts, (observation, attempt.state)
