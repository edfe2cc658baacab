"""One story per incident, whatever order its facts came in and however often."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella.v1 import events_pb2 as facts
from prunella.v1.events_pb2 import Event
from services.ops.stories import Story, summary
from services.ops.stories import story as story_of
from tests.unit.healing_facts import (
    INCIDENT,
    MERCHANT,
    PLUGIN,
    START,
    applied,
    closed,
    created,
    decided,
    decoded,
    escalated,
    event,
    healing,
    mitigated,
    opened,
    rolled_back,
    staged,
    succeeded,
    verdict,
)


def story(events: list[Event]) -> Story:
    return story_of(INCIDENT, decoded(events))


def second_try() -> list[Event]:
    """The first remedy is taken back, nothing else helps, a person closes it."""
    back = facts.AttemptRollingBack(attempt="a1", verdict=verdict("fail"))
    round_two = facts.IncidentRoundStarted(type="webhook_fail_rate", severity=facts.SEVERITY_HIGH, round=2)
    refused = facts.AttemptRefused(attempt="a2", decision="d2", gate="MIN_CONFIDENCE", action=facts.ACTION_ROLLBACK)
    return [
        opened(1),
        decided(2),
        created(3),
        staged(4),
        applied(5),
        event(6, back),
        rolled_back(7),
        event(8, round_two),
        decided(9, "d2", confidence=0.3, round_=2),
        created(10, "a2", "d2", round_=2),
        event(11, refused, reason="confidence 0.30 < 0.60"),
        escalated(12),
        event(13, facts.IncidentAssigned(assignee="operators/ada"), actor="operators/ada"),
        closed(14, actor="operators/ada", resolution="fixed by hand"),
    ]


def test_a_healing_tells_what_broke_what_was_seen_what_was_done_and_how_to_roll_it_back() -> None:
    found = story(healing())
    assert (found.plugin, found.merchant, found.label) == (PLUGIN, MERCHANT, "shop-7")
    assert found.symptom == "shop-7 broke: webhook_fail_rate medium"
    assert found.evidence == "webhook_fail_rate 0.60 > 0.30 over 25 attempts"
    assert found.first_bad_beat_time == START
    (one,) = found.attempts
    assert (one.action, one.from_release, one.to_release, one.confidence) == ("patch", "1.2.0", "1.2.3", 0.87)
    assert one.explanation == "known fix"
    assert one.staging == "6/6 tests passed in 1.5 s"
    assert one.verdict == "pass: error rate 60% → 0% over 5 beats · seen"
    assert (one.state, one.end_time) == ("success", START + timedelta(seconds=10))
    assert (found.state, found.outcome) == ("mitigated", "healed in 9.0 s by patch 1.2.0 → 1.2.3")
    assert found.rollback_command == 'prunella rollback a1 --reason "…"'
    assert (found.attention_command, found.manual) == ("", False)
    assert summary(found) == "shop-7: webhook_fail_rate (medium) · healed in 9.0 s by patch 1.2.0 → 1.2.3"


def test_a_story_that_ended_at_a_person_tells_every_try_and_who_ended_it() -> None:
    found = story(second_try())
    assert [(one.attempt, one.state, one.outcome) for one in found.attempts] == [
        ("a1", "rolled_back", "because"),
        ("a2", "refused", "confidence 0.30 < 0.60"),
    ]
    assert (found.severity, found.rounds, found.assignee) == ("high", 2, "operators/ada")
    assert (found.state, found.outcome) == ("closed", "closed by operators/ada: fixed by hand")
    assert found.manual
    assert found.rollback_command == ""


@pytest.mark.parametrize(
    ("until", "state", "outcome", "attention_command"),
    [
        (1, "open", "a remedy is looked for", ""),
        (3, "in_progress", "patch 1.2.0 → 1.2.3 is pending", ""),
        (5, "in_progress", "patch 1.2.0 → 1.2.3 is in probation", ""),
        (8, "open", "the next remedy is looked for", ""),
        (
            12,
            "escalated",
            "a person is asked: 3 rounds did not help",
            f'prunella incidents close {INCIDENT} --reason "…"',
        ),
    ],
)
def test_a_story_says_where_it_stands(until: int, state: str, outcome: str, attention_command: str) -> None:
    found = story(second_try()[:until])
    assert (found.state, found.outcome, found.attention_command) == (state, outcome, attention_command)


def test_who_must_approve_is_told_the_line_to_type() -> None:
    asked = facts.ApprovalRequested(subject="attempts/a1", quorum=2)
    found = story([opened(1), decided(2), created(3), staged(4), event(5, asked)])
    assert found.attempts[0].state == "awaiting_approval"
    assert found.attention_command == 'prunella approve a1 --reason "…"'


def test_a_held_attempt_names_what_it_waits_for_until_it_goes_on() -> None:
    held = event(5, facts.AttemptHeld(attempt="a1", gate="STORM"))
    begun = [opened(1), decided(2), created(3), staged(4), held]
    assert story(begun).outcome == "patch 1.2.0 → 1.2.3 is staged, waiting for STORM"
    assert story([*begun, applied(6)]).outcome == "patch 1.2.0 → 1.2.3 is in probation"


def test_a_success_that_a_person_takes_back_is_told_as_that() -> None:
    back = event(20, facts.AttemptRollingBack(attempt="a1"), actor="operators/ada")
    found = story([*healing(), back, rolled_back(21)])
    assert found.outcome.endswith("taken back later")
    assert found.manual
    assert found.rollback_command == ""


def test_facts_that_are_missing_leave_holes_and_nothing_is_made_up() -> None:
    found = story([succeeded(10), mitigated(11)])
    assert (found.evidence, found.first_bad_beat_time, found.open_time) == ("", None, None)
    assert found.attempts[0].staging == ""
    assert found.outcome == "healed by patch 1.2.0 → 1.2.3"
    nothing = story_of(INCIDENT, [])
    assert (nothing.state, nothing.steps) == ("open", [])


@pytest.mark.parametrize("events", [healing(), second_try()], ids=["healing", "second try"])
@given(data=st.data())
def test_any_order_and_any_repeats_tell_the_same_story(events: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(events))
    again = data.draw(st.lists(st.sampled_from(events), max_size=5))
    assert story([*shuffled, *again]) == story(events)


@given(data=st.data())
def test_any_part_of_a_story_can_be_told(data: st.DataObject) -> None:
    part = data.draw(st.lists(st.sampled_from(second_try()), unique_by=lambda one: one.id))
    found = story(part)
    assert len(found.steps) == len(part)
    assert summary(found)
