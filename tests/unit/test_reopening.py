"""What comes back soon continues its incident; what comes back again and again is flapping, and asks once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import incident_lifecycle, reopening
from services.ingest.finding import Severity
from services.ingest.incident import Evidence, Incident, IncidentEvent, State, TriedRemedy
from services.ingest.reopening import RECURRED, Recurrence, Rules

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
WINDOW = timedelta(minutes=30)
RULES = Rules(WINDOW, 3, 3, timedelta(minutes=15))
OPENED, REOPENED, ESCALATED = IncidentEvent.OPENED, IncidentEvent.REOPENED, IncidentEvent.ESCALATED


def incident(**values: Any) -> Incident:
    plain = Incident(
        "i", "p", "m", "relay", "webhook_fail_rate", Severity.MEDIUM, State.OPEN, 1, NOW, NOW, NOW,
        NOW + timedelta(minutes=15), release="1.2.0",
    )  # fmt: skip
    return replace(plain, **values)


def closed(at: datetime = NOW, **values: Any) -> Incident:
    return replace(incident(**values), state=State.CLOSED, end_time=at)


def mitigated(at: datetime = NOW, **values: Any) -> Incident:
    healed = {"attempt": "a-1", "action": 1, "remedy": "1.2.3", "healed_generation": 4, "healed_decision": "d-1"}
    return replace(incident(**(healed | values)), state=State.MITIGATED, end_time=at)


def again(generation: int = 0, severity: Severity = Severity.MEDIUM, **values: Any) -> Recurrence:
    return Recurrence(severity, Evidence("as before"), NOW, "1.2.0", generation, **values)


def back(before: Incident, after: timedelta = timedelta(minutes=5), **values: Any) -> Any:
    return reopening.came_back(before, again(**values), (before.end_time or NOW) + after, RULES)


@pytest.mark.parametrize(
    ("before", "after", "continues"),
    [
        (closed(), WINDOW, True),
        (closed(), WINDOW + timedelta(seconds=1), False),
        (mitigated(), WINDOW, True),
        (closed(closed_by="operators/ann"), timedelta(0), False),
        (incident(), timedelta(0), False),
        (incident(state=State.ESCALATED), timedelta(0), False),
        (incident(state=State.FLAPPING), timedelta(0), False),
        (incident(state=State.FLAPPING, calm_time=NOW), timedelta(days=1), True),
    ],
)
def test_what_comes_back_within_the_window_goes_on(before: Incident, after: timedelta, continues: bool) -> None:
    assert reopening.continues(before, NOW + after, RULES) is continues
    moved = reopening.came_back(before, again(), NOW + after, RULES).incident != before
    assert moved is continues


def test_without_a_window_nothing_goes_on() -> None:
    assert not reopening.continues(closed(), NOW, replace(RULES, within=timedelta(0)))


def test_it_goes_on_in_its_next_round_with_time_to_act_anew() -> None:
    step = back(closed(healthy_windows=5, resolution="healthy"))
    found = step.incident
    assert (found.state, found.round, found.reopened, step.events) == (State.OPEN, 2, 1, (REOPENED,))
    assert found.reopen_time == NOW + timedelta(minutes=5)
    assert found.act_by_time == found.reopen_time + RULES.act_within
    assert (found.end_time, found.resolution, found.healthy_windows, found.attempt) == (None, "", 0, "")
    assert found.evidence.summary == "as before"
    assert found.open_time == NOW, "it began when it began"


def test_its_severity_never_falls() -> None:
    assert back(closed(severity=Severity.HIGH)).incident.severity is Severity.HIGH
    assert back(closed(), severity=Severity.CRITICAL).incident.severity is Severity.CRITICAL


def test_a_clock_that_stands_still_keeps_beginnings_after_ends() -> None:
    step = reopening.came_back(closed(), again(), NOW, RULES)
    assert step.incident.reopen_time == NOW + timedelta(microseconds=1)


def test_a_remedy_is_blamed_only_when_the_same_came_back_under_what_it_brought() -> None:
    step = back(mitigated(), generation=4)
    assert step.incident.tried == (TriedRemedy("a-1", 1, "1.2.3", RECURRED, "webhook_fail_rate came back under it"),)
    assert step.recurred == mitigated()


@pytest.mark.parametrize(
    ("before", "values"),
    [
        (mitigated(), {"generation": 5}),
        (mitigated(), {"generation": 4, "changing": True}),
        (mitigated(healed_generation=0), {"generation": 4}),
        (mitigated(attempt=""), {"generation": 4}),
        (mitigated(tried=(TriedRemedy("a-1", 1, "1.2.3", "failed", "no"),)), {"generation": 4}),
        (closed(healed_generation=4, attempt="a-1"), {"generation": 4}),
    ],
)
def test_otherwise_something_else_changed_and_it_is_not_to_blame(before: Incident, values: dict[str, Any]) -> None:
    step = back(before, **values)
    assert step.incident.state is State.OPEN
    assert step.recurred is None
    assert [tried for tried in step.incident.tried if tried.outcome == RECURRED] == []


def cycles(times: int, **values: Any) -> list[Any]:
    """It comes back so often, each time well again by itself."""
    steps, found = [], closed(**values)
    for _ in range(times):
        step = back(found)
        steps.append(step)
        found = step.incident
        for _ in range(5):
            found = incident_lifecycle.improved(
                found, (found.reopen_time or NOW) + timedelta(minutes=1), enough=5
            ).incident
        if found.state is not State.FLAPPING:
            assert found.state is State.CLOSED
    return steps


def test_the_third_return_is_flapping_and_asks_a_person_once() -> None:
    steps = cycles(6)
    assert [step.incident.state for step in steps] == [State.OPEN, State.OPEN] + [State.FLAPPING] * 4
    assert [step.events for step in steps] == [(REOPENED,)] * 2 + [(REOPENED, ESCALATED)] + [(REOPENED,)] * 3
    assert steps[2].reason == "flapping: it came back 3 times; nothing more is tried"
    assert steps[-1].incident.reopened == 6


def test_who_was_asked_before_is_not_asked_again() -> None:
    steps = cycles(4, escalate_time=NOW)
    assert not any(ESCALATED in step.events for step in steps)
    assert [step.incident.state for step in steps][:3] == [State.ESCALATED, State.ESCALATED, State.FLAPPING]


@pytest.mark.parametrize("type_", ["heartbeat_missed", "plugin_away"])
def test_who_is_out_of_reach_again_is_a_persons_matter_at_once(type_: str) -> None:
    step = back(closed(type=type_))
    assert (step.incident.state, step.events) == (State.ESCALATED, (REOPENED, ESCALATED))
    assert "again" in step.reason


def test_what_was_tried_as_often_as_may_be_goes_to_a_person() -> None:
    step = back(closed(round=3))
    assert (step.incident.state, step.events) == (State.ESCALATED, (REOPENED, ESCALATED))
    assert step.reason == "it came back after 3 rounds"


def test_during_a_storm_nobody_is_asked_about_one_of_many() -> None:
    storm = reopening.during(closed(type="heartbeat_missed"), "s-1")
    step = back(storm)
    assert (step.incident.state, step.events, step.incident.escalate_time) == (State.OPEN, (REOPENED,), None)
    flapping = back(replace(storm, reopened=2))
    assert (flapping.incident.state, flapping.events) == (State.FLAPPING, (REOPENED,))
    assert reopening.during(storm, "").paused is False


def test_a_flapping_one_ends_after_a_calm_window_and_says_how_often_it_came() -> None:
    found = cycles(3)[-1].incident
    at = found.reopen_time + timedelta(minutes=1)
    for _ in range(5):
        found = incident_lifecycle.improved(found, at, enough=5).incident
    assert (found.state, found.calm_time) == (State.FLAPPING, at)
    assert reopening.calmed(found, at + WINDOW - timedelta(seconds=1), RULES).incident == found
    step = reopening.calmed(found, at + WINDOW, RULES)
    assert (step.incident.state, step.events, step.was_flapping) == (State.CLOSED, (IncidentEvent.CLOSED,), True)
    assert step.reason == "came back 3 times, and is calm for 30 min now"


def test_a_return_takes_the_calm_away() -> None:
    found = replace(cycles(3)[-1].incident, calm_time=NOW)
    once_more = reopening.came_back(found, again(), NOW + WINDOW, RULES).incident
    assert (once_more.calm_time, once_more.reopened) == (None, 4)
    assert reopening.calmed(once_more, NOW + timedelta(days=9), RULES).incident == once_more


def test_what_is_not_flapping_is_never_calmed() -> None:
    for before in (incident(), closed(), mitigated(), incident(state=State.ESCALATED)):
        assert reopening.calmed(before, NOW + timedelta(days=9), RULES).incident == before


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_a_person_is_asked_at_most_once_however_it_comes_and_goes(pauses: list[int]) -> None:
    found, at, asked = closed(), NOW, 0
    for minutes in pauses:
        at += timedelta(minutes=minutes)
        if reopening.continues(found, at, RULES):
            step = reopening.came_back(found, again(), at, RULES)
            asked += step.events.count(ESCALATED)
            assert step.events[0] is REOPENED
            assert step.incident.reopened == found.reopened + 1
            found = step.incident
        for _ in range(5):
            found = incident_lifecycle.improved(found, at, enough=5).incident
        found = reopening.calmed(found, at, RULES).incident
    assert asked <= 1
