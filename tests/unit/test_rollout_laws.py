"""What no sequence of words, wishes and ticks can do to a rollout."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import Refused as Forbidden
from services.patcher import rollout as heart
from services.patcher.rollout import (
    FINAL,
    LIVE,
    OWNERS,
    AbortRequested,
    BudgetChanged,
    ControlGroupUpdated,
    Counts,
    Member,
    MemberState,
    NotSwitched,
    Observation,
    Outcome,
    PauseRequested,
    PluginLeft,
    PromoteRequested,
    ResumeRequested,
    Returned,
    RollbackFailed,
    RolledBack,
    Rollout,
    RolloutEvent,
    Scope,
    Settled,
    State,
    Superseded,
    Switched,
    Tick,
    WentOffline,
)
from tests.unit.rollout_stories import Story

EDGES = {
    State.PENDING: {State.RUNNING, State.ABORTED},
    State.RUNNING: {State.RUNNING, State.SOAKING, State.PAUSED, State.ROLLING_BACK, State.ABORTED},
    State.SOAKING: {State.RUNNING, State.PAUSED, State.ROLLING_BACK, State.ABORTED, State.SUCCEEDED},
    State.PAUSED: {State.RUNNING, State.ROLLING_BACK, State.ABORTED, State.SUCCEEDED},
    State.ROLLING_BACK: {State.HALTED, State.ABORTED},
}
S = MemberState
plugins = st.integers(1, 12).map(lambda number: f"p{number}")
words = st.sampled_from(
    [
        *[("settled", outcome) for outcome in Outcome],
        ("settled", Outcome.HEALTHY), ("settled", Outcome.HEALTHY), ("settled", Outcome.HEALTHY), ("switched", None),
        ("not switched", True), ("not switched", False), ("offline", None), ("returned", None), ("left", None),
        ("back", None), ("not back", None),
    ]
)  # fmt: skip
wishes = st.one_of(
    st.builds(PauseRequested, st.just("ann"), st.just("x")),
    st.builds(ResumeRequested, st.just("ann"), st.just("x")),
    st.builds(PromoteRequested, st.just("ann"), st.just("x")),
    st.builds(AbortRequested, st.just("ann"), st.just("x"), st.sampled_from(Scope)),
    st.builds(BudgetChanged, st.integers(1, 4), st.just("ann"), st.just("x")),
    st.builds(ControlGroupUpdated, st.builds(Counts, st.integers(20, 40), st.integers(0, 20))),
    st.just(Superseded("rollouts/r2")),
)
steps = st.one_of(
    st.tuples(plugins, words), st.tuples(plugins, words), st.tuples(plugins, words),
    wishes, st.sampled_from([timedelta(0), timedelta(minutes=10), timedelta(hours=2)]),
)  # fmt: skip


def observation(row: Member, kind: str, what: object) -> Observation:
    if isinstance(what, Outcome):
        return Settled(row, what)
    if kind == "not switched":
        return NotSwitched(row, "x", retry=bool(what))
    if kind in {"left", "not back"}:
        return PluginLeft(row, "x") if kind == "left" else RollbackFailed(row, "x")
    made: dict[str, type[Switched | WentOffline | Returned | RolledBack]] = {
        "switched": Switched, "offline": WentOffline, "returned": Returned, "back": RolledBack,
    }  # fmt: skip
    return made[kind](row)


def lawful(story: Story, before: Rollout) -> None:
    after = story.rollout
    assert (after.deadline_time is not None) == (after.state in LIVE)
    assert (after.end_time is not None) == (after.state in FINAL)
    assert before.state is after.state or before.state not in FINAL
    limit = max(before.budget, after.budget)
    assert after.in_flight <= max(limit, before.in_flight), "never more in flight than the budget"
    for old, new in zip(before.tallies, after.tallies, strict=True):
        assert new.exposed >= old.exposed
        assert len(new.broken) >= len(old.broken), "what counts against the build stays counted"
        assert len(set(new.broken)) == len(new.broken) <= new.exposed


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([(3, 7), (10,), (1, 4, 5)]), st.lists(steps, max_size=60))
def test_no_sequence_of_observations_leads_where_it_must_not(
    sizes: tuple[int, ...], seen: list[tuple[str, tuple[str, object]] | Observation | timedelta]
) -> None:
    story = Story(*sizes, offline=2, budget=4)
    for step in seen:
        before = story.rollout
        with contextlib.suppress(Forbidden):
            if isinstance(step, timedelta):
                story.sees(Tick(), after=step)
            elif isinstance(step, tuple):
                story.sees(observation(story.rows[step[0]], *step[1]))
            else:
                story.sees(step)
        lawful(story, before)
    assert all(later in EDGES[earlier] for earlier, later in _path(story)), _path(story)
    for _ in range(40):
        if story.state() in FINAL:
            break
        assert story.rollout.deadline_time is not None
        story.sees(Tick(), after=max(timedelta(0), story.rollout.deadline_time - story.now))
    assert story.state() in FINAL, "left alone, every rollout ends by its deadlines"
    ends = [RolloutEvent.SUCCEEDED, RolloutEvent.ROLLED_BACK, RolloutEvent.ABORTED, RolloutEvent.HALTED]
    assert any(end in story.events for end in ends)
    assert story.events.count(RolloutEvent.HALTED) + story.events.count(RolloutEvent.SUCCEEDED) <= 1


def _path(story: Story) -> list[tuple[State, State]]:
    return [(step.from_state, step.to_state) for step in story.transitions]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(plugins, words), min_size=1, max_size=40), st.data())
def test_a_stale_row_or_a_repeated_word_never_counts_twice(
    seen: list[tuple[str, tuple[str, object]]], data: st.DataObject
) -> None:
    story = Story(12)
    for plugin, (kind, what) in seen:
        story.sees(observation(story.rows[plugin], kind, what))
        retry = heart.next(story.rollout, observation(story.rows[plugin], kind, what), story.now)
        exposed = [tally.exposed for tally in story.rollout.tallies]
        broken = [tally.broken for tally in story.rollout.tallies]
        assert [tally.exposed for tally in retry.rollout.tallies] == exposed
        assert [tally.broken for tally in retry.rollout.tallies] == broken


def test_every_state_that_is_not_final_has_an_owner_an_end_and_a_successor() -> None:
    assert set(OWNERS) == LIVE == set(EDGES)
    for earlier, later in pairwise([State.PENDING, State.RUNNING, State.SOAKING, State.SUCCEEDED]):
        assert later in EDGES[earlier]
