"""What the demo compares with the figures and the audit log of ops: each difference is found."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.demo import audit_comparison, kpi_comparison
from prunella.v1 import events_pb2 as facts
from prunella.v1 import kpis_pb2, stories_pb2
from prunella.v1.events_pb2 import Event


def story() -> stories_pb2.Story:
    made = stories_pb2.Story(
        state="mitigated", attempts=[stories_pb2.StoryAttempt(attempt="a", state="success", confidence=0.87)]
    )
    made.first_bad_beat_time.FromSeconds(100)
    made.end_time.FromSeconds(109)
    return made


SCENARIO: dict[str, Any] = {
    "name": "heal_patch",
    "outcome": "success, mitigated",
    "attempt": "a",
    "decision": {"confidence": 0.87},
    "total_s": 9.0,
}


def test_a_story_that_fits_has_no_differences() -> None:
    assert kpi_comparison.story_differences(story(), SCENARIO) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"outcome": "a person is asked"}, "the story is mitigated"),
        ({"attempt": "b"}, "does not know that b healed it"),
        ({"decision": {"confidence": 0.5}}, "confidence 0.870"),
        ({"total_s": 8.0}, "the story took 9.00 s"),
    ],
)
def test_each_difference_is_a_line(other: dict[str, Any], said: str) -> None:
    (line,) = kpi_comparison.story_differences(story(), SCENARIO | other)
    assert line.startswith("heal_patch: ")
    assert said in line


def test_figures_are_counted_against_facts() -> None:
    kpis = kpis_pb2.GetKpisResponse(incidents_by_severity={"medium": 2}, incidents_ended={"mitigated": 1})
    assert kpi_comparison.differences(kpis, {"incident_opened": 2, "incident_mitigated": 1}) == []
    assert kpi_comparison.differences(kpis, {"incident_opened": 3, "incident_mitigated": 1}) == [
        "incident_opened was recorded 3 times, the figures say 2"
    ]


def logged() -> list[Event]:
    made = [
        Event(incident="i", attempt_succeeded=facts.AttemptSucceeded(attempt="a")),
        Event(incident="i", incident_mitigated=facts.IncidentMitigated(round=1)),
    ]
    for seconds, event in enumerate(made):
        event.time.FromSeconds(seconds)
    return made


COUNTED = {"attempt_succeeded": 1, "incident_mitigated": 1}
PLAYED = SCENARIO | {"incident": "i", "ok": True}


def test_a_log_that_fits_has_no_differences_even_when_more_happened_since() -> None:
    later = Event(incident="i", incident_closed=facts.IncidentClosed(resolution="healed"))
    later.time.FromSeconds(9)
    assert audit_comparison.differences([*logged(), later], COUNTED, [PLAYED]) == []


def test_what_the_log_lacks_or_tells_otherwise_is_a_line() -> None:
    assert audit_comparison.differences(logged()[1:], COUNTED, [PLAYED]) == [
        "attempt_succeeded was recorded 1 times, the audit log has 0",
        "heal_patch: the audit log tells 'mitigated', it was 'success, mitigated'",
    ]
    failed = PLAYED | {"ok": False, "outcome": "not over within 90 s"}
    assert audit_comparison.differences(logged(), COUNTED, [failed, PLAYED | {"incident": ""}]) == []
