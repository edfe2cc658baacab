"""Storms: when they begin, when they do not, and how they end."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid, Refused
from services.ingest import storm as heart
from services.ingest.storm import OWNERS, Counts, Rules, State, Storm, StormEvent, count_from

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = Rules()
NO_STORM = Storm("checkout", "webhook_fail_rate")


def on(opened: int = 12, fleet: int = 40) -> Storm:
    step = heart.advance(NO_STORM, Counts(opened, opened, fleet), START, RULES)
    assert step.event is StormEvent.STARTED
    return step.storm


@pytest.mark.parametrize(
    ("fleet", "needed"), [(0, 5), (1, 5), (5, 5), (40, 5), (49, 5), (50, 6), (59, 6), (60, 7), (200, 21), (1000, 101)]
)
def test_a_storm_takes_more_than_a_tenth_and_at_least_five(fleet: int, needed: int) -> None:
    assert RULES.begins_at(fleet) == needed


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_it_never_begins_below_five_and_always_at_its_threshold(opened: int, fleet: int) -> None:
    began = heart.advance(NO_STORM, Counts(opened, opened, fleet), START, RULES).event is StormEvent.STARTED
    assert began == (opened >= 5 and opened * 10 > fleet)


def test_its_beginning_says_the_figures_in_one_sentence() -> None:
    step = heart.advance(NO_STORM, Counts(12, 12, 40), START, RULES)
    assert step.reason == (
        "12 of 40 checkout plugins opened webhook_fail_rate within 5 minutes, 5 make a storm: "
        "the cause is most likely outside them"
    )


def test_it_pages_once_however_long_it_lasts() -> None:
    storm = on()
    for minute in range(60):
        step = heart.advance(storm, Counts(12, 20, 40), START + minute * MINUTE, RULES)
        assert step.event is None
        storm = step.storm
    assert storm.peak == 20


def test_it_ends_by_itself_after_ten_calm_minutes_on_end() -> None:
    storm, ended = on(), []
    ill = [8] * 5 + [2] * 6 + [3] + [2] * 20
    for minute, count in enumerate(ill):
        step = heart.advance(storm, Counts(0, count, 40), START + minute * MINUTE, RULES)
        storm = step.storm
        ended += [minute] if step.event is StormEvent.ENDED else []
    assert ended == [22]
    assert storm.state is State.OVER


def test_nothing_new_is_no_end_while_everybody_is_still_ill() -> None:
    storm = on()
    for minute in range(120):
        storm = heart.advance(storm, Counts(0, 38, 40), START + minute * MINUTE, RULES).storm
    assert storm.state is State.ONGOING


def test_a_person_ends_it_with_a_reason_and_what_went_before_begins_no_other() -> None:
    with pytest.raises(Invalid):
        heart.end(on(), "operators/ada", "  ", START + MINUTE)
    step = heart.end(on(), "operators/ada", "the sink is back", START + MINUTE)
    assert (step.event, step.actor, step.storm.state) == (StormEvent.ENDED, "operators/ada", State.OVER)
    assert count_from(step.storm, START + 2 * MINUTE, RULES) == START + MINUTE
    assert count_from(step.storm, START + 20 * MINUTE, RULES) == START + 15 * MINUTE
    with pytest.raises(Refused):
        heart.end(step.storm, "operators/ada", "again", START + 2 * MINUTE)


def test_incidents_of_the_window_that_began_it_belong_to_it() -> None:
    assert on().count_from_time == START - 5 * MINUTE


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=80), st.integers(5, 300))
def test_it_never_flaps_begin_and_end_are_at_least_the_calm_apart(looks: list[tuple[int, int]], fleet: int) -> None:
    storm, last = NO_STORM, None
    for minute, (opened, ill) in enumerate(looks):
        now = START + minute * MINUTE
        step = heart.advance(storm, Counts(opened, max(opened, ill), fleet), now, RULES)
        if step.event is StormEvent.ENDED:
            assert last is not None
            assert now - last >= RULES.cooldown
        if step.event is StormEvent.STARTED:
            last = now
            assert opened >= max(5, fleet // 10)
        storm = step.storm


def test_every_state_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == set(State)
