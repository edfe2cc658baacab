"""An incident's way through its rounds, and what late, repeated and reordered facts do to it: nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import incident_lifecycle
from services.ingest.finding import Severity
from services.ingest.incident import (
    ACTIVE,
    OWNERS,
    AttemptOutcome,
    Evidence,
    Incident,
    IncidentEvent,
    State,
    Transition,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def incident(**values: object) -> Incident:
    plain = Incident(
        id="i",
        plugin="p",
        merchant="m",
        package="relay",
        type="webhook_fail_rate",
        severity=Severity.MEDIUM,
        state=State.OPEN,
        round=1,
        open_time=NOW,
        first_bad_beat_time=NOW,
        update_time=NOW,
        act_by_time=NOW + timedelta(minutes=15),
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def over(attempt: str = "a-1", number: int = 1, *, to_operator: bool = False) -> AttemptOutcome:
    return AttemptOutcome(attempt, number, "rolled_back", "worse than before", 1, "1.2.4", to_operator)


def begun(attempt: str = "a-1", number: int = 1, base: Incident | None = None) -> Incident:
    return incident_lifecycle.attempt_started(base or incident(), attempt, number, 1, "1.2.4", NOW).incident


def test_a_new_incident_is_told_and_silence_goes_to_a_person_at_once() -> None:
    assert incident_lifecycle.opened(incident()).events == (IncidentEvent.OPENED,)
    silent = incident_lifecycle.opened(incident(type="heartbeat_missed"))
    assert (silent.incident.state, silent.events) == (State.ESCALATED, (IncidentEvent.OPENED, IncidentEvent.ESCALATED))


def test_a_remedy_that_did_not_help_starts_the_next_round_without_it() -> None:
    step = incident_lifecycle.remedy_failed(begun(), over(), LATER, rounds=3)
    assert (step.incident.state, step.incident.round, step.events) == (State.OPEN, 2, (IncidentEvent.ROUND_STARTED,))
    assert [(one.release, one.outcome) for one in step.incident.tried] == [("1.2.4", "rolled_back")]


def test_a_cancelled_attempt_is_remembered_with_what_it_tried() -> None:
    told = AttemptOutcome("a-1", 1, "cancelled", "held too long")
    (tried,) = incident_lifecycle.remedy_failed(begun(), told, LATER, rounds=3).incident.tried
    assert (tried.action, tried.release) == (1, "1.2.4")


def test_the_next_round_is_about_what_runs_by_now() -> None:
    told = AttemptOutcome("a-1", 1, "cancelled", "the plugin runs another release now")
    found = incident_lifecycle.remedy_failed(
        incident(release="1.2.0"), told, LATER, rounds=3, runs=("1.2.3", 7)
    ).incident
    assert (found.round, found.release, found.generation) == (2, "1.2.3", 7)
    same = incident_lifecycle.remedy_failed(incident(release="1.2.0"), told, LATER, rounds=3).incident
    assert same.release == "1.2.0"


def test_after_the_last_round_a_person_is_asked() -> None:
    found = incident()
    for number in (1, 2, 3):
        found = incident_lifecycle.remedy_failed(
            begun(f"a-{number}", number, found), over(f"a-{number}", number), LATER, rounds=3
        ).incident
    assert (found.state, found.round, len(found.tried)) == (State.ESCALATED, 3, 3)


def test_a_refusal_goes_to_a_person_at_once() -> None:
    step = incident_lifecycle.remedy_failed(incident(), over(to_operator=True), LATER, rounds=3)
    assert (step.incident.state, step.events) == (State.ESCALATED, (IncidentEvent.ESCALATED,))


def test_no_round_starts_after_the_time_to_act() -> None:
    step = incident_lifecycle.remedy_failed(begun(), over(), NOW + timedelta(hours=1), rounds=3)
    assert step.incident.state is State.ESCALATED


def test_it_closes_after_enough_healthy_windows_in_a_row() -> None:
    found = incident()
    for _ in range(4):
        found = incident_lifecycle.improved(found, LATER, enough=5).incident
    assert (found.state, found.healthy_windows) == (State.OPEN, 4)
    found = incident_lifecycle.worsened(found, Severity.MEDIUM, Evidence(), LATER).incident
    assert found.healthy_windows == 0
    step = incident_lifecycle.improved(replace(found, healthy_windows=4), LATER, enough=5)
    assert (step.incident.state, step.events) == (State.CLOSED, (IncidentEvent.CLOSED,))


def test_an_illness_that_is_over_before_its_remedy_is_permitted_ends_by_itself() -> None:
    step = incident_lifecycle.improved(begun(), LATER, enough=1)
    assert (step.incident.state, step.events, step.healed_by_itself) == (State.CLOSED, (IncidentEvent.CLOSED,), True)
    assert step.incident.attempt == ""


def test_from_the_permit_on_only_the_outcome_ends_it() -> None:
    permitted = incident_lifecycle.attempt_permitted(begun(), "a-1", NOW).incident
    assert permitted.permitted
    assert incident_lifecycle.improved(permitted, LATER, enough=1).incident == permitted


def test_healthy_windows_are_counted_while_an_attempt_waits() -> None:
    found = incident_lifecycle.improved(begun(), LATER, enough=3).incident
    assert (found.state, found.healthy_windows) == (State.IN_PROGRESS, 1)
    worse = incident_lifecycle.worsened(found, Severity.MEDIUM, Evidence(), LATER).incident
    assert worse.healthy_windows == 0


def test_one_beat_ends_a_silence() -> None:
    silent = incident_lifecycle.opened(incident(type="heartbeat_missed")).incident
    assert incident_lifecycle.improved(silent, LATER, enough=5).incident.state is State.CLOSED


def test_severity_only_rises() -> None:
    high = incident_lifecycle.worsened(incident(), Severity.HIGH, Evidence("worse"), LATER).incident
    assert (high.severity, high.evidence.summary) == (Severity.HIGH, "worse")
    assert (
        incident_lifecycle.worsened(high, Severity.MEDIUM, Evidence("less"), LATER).incident.severity is Severity.HIGH
    )


def test_what_a_remedy_does_while_it_is_tried_makes_the_incident_no_worse() -> None:
    tried = incident_lifecycle.worsened(begun(), Severity.HIGH, Evidence("worse"), LATER, generation=1).incident
    assert (tried.severity, tried.evidence) == (Severity.MEDIUM, Evidence())
    own = incident_lifecycle.worsened(begun(), Severity.HIGH, Evidence("worse"), LATER, generation=0).incident
    assert own.severity is Severity.HIGH
    nobody = incident_lifecycle.worsened(incident(), Severity.HIGH, Evidence("worse"), LATER, generation=1).incident
    assert nobody.severity is Severity.HIGH, "somebody else changed it"


@pytest.mark.parametrize(
    ("state", "after", "ends"),
    [
        (State.OPEN, timedelta(minutes=14), False),
        (State.OPEN, timedelta(minutes=15), True),
        (State.IN_PROGRESS, timedelta(minutes=16), False),
        (State.IN_PROGRESS, timedelta(hours=3), True),
        (State.ESCALATED, timedelta(days=9), False),
    ],
)
def test_the_time_to_act_hands_over_what_nobody_moves(state: State, after: timedelta, ends: bool) -> None:
    step = incident_lifecycle.overdue(incident(state=state), NOW + after)
    assert (IncidentEvent.ESCALATED in step.events) is ends


def test_a_decision_of_another_round_hands_nothing_over() -> None:
    assert not incident_lifecycle.declined(incident(round=2), 1, "nothing to do", LATER).events
    assert incident_lifecycle.declined(incident(round=2), 2, "nothing to do", LATER).incident.state is State.ESCALATED


def test_success_heals_from_any_active_state_and_only_once() -> None:
    for state in ACTIVE:
        step = incident_lifecycle.mitigated(incident(state=state), "a-1", LATER)
        assert (step.incident.state, step.events) == (State.MITIGATED, (IncidentEvent.MITIGATED,))
        assert not incident_lifecycle.mitigated(step.incident, "a-1", LATER).events


def test_every_state_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == set(State)
    assert all(OWNERS[state].next is not None for state in ACTIVE)


def facts_of_two_rounds() -> list[tuple[str, int]]:
    return [("created", 1), ("over", 1), ("created", 2), ("succeeded", 2)]


def apply(found: Incident, fact: tuple[str, int]) -> Transition:
    kind, number = fact
    if kind == "created":
        return incident_lifecycle.attempt_started(found, f"a-{number}", number, 1, "1.2.4", LATER)
    if kind == "over":
        return incident_lifecycle.remedy_failed(found, over(f"a-{number}", number), LATER, rounds=3)
    return incident_lifecycle.mitigated(found, f"a-{number}", LATER)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_and_however_often_facts_come_the_end_is_the_same(order: tuple[int, ...]) -> None:
    facts, told = facts_of_two_rounds(), []
    found = incident()
    for place in [*order, *order]:
        step = apply(found, facts[place])
        found, told = step.incident, [*told, *step.events]
    assert found.state is State.MITIGATED
    assert told.count(IncidentEvent.MITIGATED) == 1
    assert told.count(IncidentEvent.ROUND_STARTED) <= 1


steps = st.sampled_from(
    ["begun", "over", "refused", "success", "eased", "close", "escalate", "declined", "overdue", "worse"]
)


def move(found: Incident, kind: str, number: int, at: datetime) -> Transition:
    attempt = f"a-{number}"
    moves = {
        "begun": lambda: incident_lifecycle.attempt_started(found, attempt, number, 1, "r", at),
        "over": lambda: incident_lifecycle.remedy_failed(found, over(attempt, number), at, rounds=3),
        "refused": lambda: incident_lifecycle.remedy_failed(
            found, over(attempt, number, to_operator=True), at, rounds=3
        ),
        "success": lambda: incident_lifecycle.mitigated(found, attempt, at),
        "eased": lambda: incident_lifecycle.improved(found, at, enough=5),
        "close": lambda: incident_lifecycle.closed(found, "by hand", at),
        "escalate": lambda: incident_lifecycle.escalated(found, "by hand", at),
        "declined": lambda: incident_lifecycle.declined(found, number, "nothing", at),
        "overdue": lambda: incident_lifecycle.overdue(found, at),
        "worse": lambda: incident_lifecycle.worsened(found, Severity.HIGH, Evidence(), at),
    }
    return moves[kind]()


@given(st.lists(st.tuples(steps, st.integers(1, 4), st.integers(0, 10_000)), max_size=40))
def test_rounds_only_rise_and_what_ended_stays_ended(moves: list[tuple[str, int, int]]) -> None:
    found = incident()
    for kind, number, seconds in moves:
        step = move(found, kind, number, NOW + timedelta(seconds=seconds))
        after = step.incident
        assert found.round <= after.round <= 3
        assert found.active or after == found
        assert after.active or after.end_time is not None
        assert len({one.attempt for one in after.tried}) == len(after.tried)
        found = after
