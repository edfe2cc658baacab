"""The watch after a commit on low evidence: until there is proof, or time is up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.patcher import watch as heart
from services.patcher.evidence import Sums
from services.patcher.verdict import Result, Verdict
from services.patcher.watch import LONGEST, OWNERS, SHORTEST, Looked, MovedOn, NotSeen, State, Watch

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
BEFORE = Sums(beats=20, attempts=10)


def begun() -> Watch:
    return heart.begin("a1", "p1", "m1", 3, NOW, DAY)


def looked(result: Result, *, low: bool = False, before: Sums = BEFORE, explanation: str = "as seen") -> Looked:
    return Looked(Verdict(result, explanation, low_evidence=low), before)


def test_it_begins_at_the_commit_and_looks_soon() -> None:
    watch = begun()
    assert (watch.state, watch.until_time, watch.look_time) == (State.WATCHING, NOW + DAY, NOW + SHORTEST)
    assert not watch.over


@pytest.mark.parametrize(
    ("observation", "state"),
    [
        (looked(Result.PASS), State.PROVEN),
        (looked(Result.FAIL), State.WORSE),
        (MovedOn("as seen"), State.SUPERSEDED),
        (looked(Result.PASS, low=True), State.WATCHING),
        (looked(Result.INSUFFICIENT), State.WATCHING),
        (NotSeen(), State.WATCHING),
    ],
)
def test_what_a_look_makes_of_it(observation: heart.Observation, state: State) -> None:
    at = NOW + timedelta(minutes=10)
    after = heart.next(begun(), observation, at)
    assert after.state is state
    assert after.over is (state is not State.WATCHING)
    assert after.end_time == (at if after.over else None)
    assert after.reason == ("" if isinstance(observation, NotSeen) else "as seen")


@pytest.mark.parametrize("result", [Result.PASS, Result.INSUFFICIENT])
def test_without_proof_in_time_it_ends_unproven_and_says_what_was_seen_last(result: Result) -> None:
    almost = heart.next(begun(), looked(result, low=True), NOW + DAY - timedelta(seconds=1))
    assert almost.state is State.WATCHING
    ended = heart.next(almost, NotSeen(), NOW + DAY)
    assert (ended.state, ended.end_time) == (State.UNPROVEN, NOW + DAY)
    assert ended.reason == "no proof in time: as seen"
    assert "nothing was seen" in heart.next(begun(), NotSeen(), NOW + DAY).reason


@pytest.mark.parametrize(("result", "state"), [(Result.PASS, State.PROVEN), (Result.FAIL, State.WORSE)])
def test_proof_counts_even_at_its_end(result: Result, state: State) -> None:
    assert heart.next(begun(), looked(result), NOW + DAY).state is state


@pytest.mark.parametrize(
    ("passed", "pause"),
    [
        (timedelta(seconds=2), SHORTEST),
        (timedelta(seconds=100), timedelta(seconds=10)),
        (timedelta(hours=6), LONGEST),
        (DAY - timedelta(seconds=30), timedelta(seconds=30)),
    ],
)
def test_looks_are_frequent_at_first_and_then_seldom(passed: timedelta, pause: timedelta) -> None:
    assert heart.next(begun(), NotSeen(), NOW + passed).look_time == NOW + passed + pause


def test_what_was_before_is_kept_from_the_first_look_on() -> None:
    first = heart.next(begun(), looked(Result.INSUFFICIENT), NOW + SHORTEST)
    assert first.before == BEFORE
    later = heart.next(first, looked(Result.INSUFFICIENT, before=Sums(beats=1)), NOW + DAY / 2)
    assert later.before == BEFORE


OBSERVATIONS = [
    looked(Result.PASS), looked(Result.FAIL), looked(Result.PASS, low=True), looked(Result.INSUFFICIENT), NotSeen(),
    MovedOn("gone"),
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(OBSERVATIONS), st.integers(0, 100_000)), max_size=20))
def test_it_always_ends_in_time_and_what_is_over_changes_no_more(steps: list[tuple[heart.Observation, int]]) -> None:
    watch, at = begun(), NOW
    for observation, seconds in steps:
        at += timedelta(seconds=seconds)
        after = heart.next(watch, observation, at)
        if watch.over:
            assert after == watch
        assert after.over or at < after.until_time
        assert after.look_time <= after.until_time
        watch = after
    assert heart.next(watch, NotSeen(), max(at, NOW + DAY)).over


def test_no_state_without_an_owner_or_an_end() -> None:
    assert set(OWNERS) | heart.FINAL == set(State)
    assert OWNERS[State.WATCHING].then is State.UNPROVEN
