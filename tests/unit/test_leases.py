"""Tasks and leases, reports and repeats: the rules, without anything around them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Denied, Invalid, Refused
from services.queue import leases, proposals, recurrence, stats
from services.queue.recurrence import CounterValue

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("severity", "confidence", "priority"),
    [
        ("critical", 0.95, 10),
        ("critical", 0.85, 9),
        ("critical", 0.8, 8),
        ("high", 0.9, 8),
        ("medium", 0.81, 5),
        ("low", 0.0, 2),
        ("unheard of", 1.0, 4),
    ],
)
def test_priority_is_harm_and_how_sure_one_is(severity: str, confidence: float, priority: int) -> None:
    assert leases.priority(severity, confidence) == priority


def test_the_original_example_has_priority_nine() -> None:
    assert leases.priority("critical", 0.85) == 9


@given(st.integers(1, 10), st.integers(1, 10), st.floats(0, 86400))
def test_a_step_of_priority_is_worth_ten_minutes_of_waiting(one: int, other: int, waited: float) -> None:
    older = leases.rank(NOW, one)
    younger = leases.rank(NOW + timedelta(seconds=waited), other)
    lead = waited - (other - one) * leases.STEP_SECONDS
    assert (older < younger) == (lead > 0) or abs(lead) < 1e-3


@given(st.integers(1, 50), st.floats(0, 1))
def test_retries_wait_as_planned_within_a_fifth(attempts: int, chance: float) -> None:
    planned = leases.RETRY_SECONDS[min(attempts, 3) - 1]
    delay = leases.retry_delay(attempts, leases.RETRY_SECONDS, chance)
    assert 0.8 * planned - 1e-6 <= delay <= 1.2 * planned + 1e-6


def test_a_task_has_a_try_after_each_of_the_three_waits() -> None:
    delays = leases.RETRY_SECONDS
    most = leases.max_attempts(delays)
    ends = [
        leases.after_failure(before, most, NOW, failure="", permanent=False, delays=delays, chance=0.5)
        for before in range(most)
    ]
    assert [end.state for end in ends] == ["retrying", "retrying", "retrying", "failed"]
    assert [(end.run_time - NOW).total_seconds() for end in ends if end.run_time] == [30, 120, 300]


@given(st.integers(0, 5), st.integers(1, 5), st.booleans(), st.floats(0, 1))
def test_no_task_is_tried_more_often_than_it_may(before: int, most: int, permanent: bool, chance: float) -> None:
    ways = {"permanent": permanent, "delays": (1.0,), "chance": chance}
    end = leases.after_failure(min(before, most), most, NOW, failure="", **ways)  # type: ignore[arg-type]
    assert end.attempts <= most
    assert end.outcome == "FAILED"
    assert (end.state == "failed") == (permanent or before + 1 >= most)
    assert (end.run_time is not None) == (end.state == "retrying")


@pytest.mark.parametrize(
    ("state", "success", "harmless"),
    [
        ("completed", True, True), ("completed", False, False), ("retrying", False, True), ("failed", False, True),
        ("failed", True, False), ("cancelled", True, False), ("processing", True, False),
    ],
)  # fmt: skip
def test_a_repeated_word_is_harmless_when_it_says_the_same(state: str, success: bool, harmless: bool) -> None:
    assert leases.is_repeat(state, success) is harmless


def test_every_state_has_an_owner_and_an_end() -> None:
    assert set(leases.OWNERS) == set(leases.STATES) == {*leases.ACTIVE, *leases.ENDED}
    assert set(recurrence.OWNERS) == set(recurrence.STATES)
    assert set(recurrence.REOPENS) < set(recurrence.STATES)


COUNTS = st.builds(CounterValue, st.sampled_from(["", "a", "b"]), st.integers(1, 20))


@given(st.lists(COUNTS, max_size=12))
def test_a_batch_folded_holds_each_counter_once_at_its_highest(told: list[CounterValue]) -> None:
    folded = {count.counter: count.value for count in recurrence.merge_counters(told)}
    for counter in ("a", "b"):
        values = [count.value for count in told if count.counter == counter]
        assert folded.get(counter, 0) == max(values, default=0)
    assert folded.get("", 0) == sum(count.value for count in told if not count.counter)


def test_figures_without_data_are_absent() -> None:
    nothing = stats.queue_stats([])
    assert nothing.total == 0
    assert nothing.success_rate_percent is None
    assert nothing.mean_completion_minutes is None
    counts = [stats.StateCount("task", "completed", 3, 12, 540.0), stats.StateCount("task", "failed", 1, 4, 0)]
    some = stats.queue_stats(counts)
    assert (some.success_rate_percent, some.mean_completion_minutes) == (75, 3)


def test_a_proposal_is_decided_once_in_time_and_by_another() -> None:
    made = proposals.create("p", "close_report", "errorReports/1", "why", "mcp", NOW)
    proposals.check_decision(made, "operators/ada", approved=True, now=NOW)
    proposals.check_decision(made, "mcp", approved=False, now=NOW)
    with pytest.raises(Denied):
        proposals.check_decision(made, "mcp", approved=True, now=NOW)
    with pytest.raises(Refused):
        proposals.check_decision(made, "operators/ada", approved=True, now=NOW + proposals.LIFE)
    with pytest.raises(Invalid):
        proposals.create("p", "close_report", "tasks/1", "why", "mcp", NOW)
