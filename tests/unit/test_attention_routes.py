"""Whatever opens an item that needs a person is told to operators by default: one list is derived from the other."""

from __future__ import annotations

import pytest

from libs.common.facts import NAMES
from prunella.v1 import events_pb2 as facts
from services.ops import attention, wire
from services.ops.notify import defaults
from services.ops.severity import Severity
from tests.unit.healing_facts import event
from tests.unit.test_attention import OPENING


def decoded(message: object, **fields: object) -> object:
    return wire.decoded_fact(event(1, message, **fields), "shop-7")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", attention.KINDS)
def test_each_item_is_told_of_with_the_line_to_type(kind: str) -> None:
    fact = wire.decoded_fact(OPENING[kind], "shop-7")
    assert fact.name in defaults.FOR_OPERATORS
    assert defaults.routed(fact)
    assert defaults.command(fact).startswith("prunella ")


def test_operators_hear_of_what_needs_a_person_and_of_a_few_things_beside() -> None:
    assert set(attention.RAISING) <= defaults.FOR_OPERATORS <= NAMES
    assert defaults.FOR_OPERATORS - set(attention.RAISING) == set(defaults.BESIDE) - set(attention.RAISING)
    assert {"rollout_paused", "rollout_aborted", "proposal_created", "fact_dead_lettered"} <= defaults.FOR_OPERATORS


def test_nothing_about_notifications_is_ever_notified() -> None:
    assert not defaults.NEVER_NOTIFIED & (defaults.FOR_OPERATORS | defaults.FOR_MERCHANTS)


@pytest.mark.parametrize(("outcome", "told"), [("withdrawn", True), ("approved", False), ("void", False), ("", False)])
def test_who_was_asked_hears_when_nobody_has_to_answer_any_more(outcome: str, told: bool) -> None:
    ended = decoded(facts.ApprovalEnded(subject="attempts/a1", outcome=outcome))
    assert defaults.routed(ended) is told  # type: ignore[arg-type]
    assert defaults.command(ended) == ""  # type: ignore[arg-type]


def test_a_return_is_told_only_while_it_is_a_persons() -> None:
    assert not defaults.routed(decoded(facts.IncidentReopened(type="plugin_down", reopened=1)))  # type: ignore[arg-type]
    asked = facts.IncidentReopened(type="plugin_down", reopened=3, escalated=True, flapping=True)
    assert defaults.routed(decoded(asked))  # type: ignore[arg-type]


def test_a_dead_letter_names_where_to_look() -> None:
    letter = decoded(facts.FactDeadLettered(consumer="patcher", event="e", fact="decision_made"))
    assert defaults.command(letter) == "prunella dead-letters list --consumer patcher"  # type: ignore[arg-type]
    assert defaults.severity(letter) is Severity.HIGH  # type: ignore[arg-type]


def test_incidents_of_one_plugin_and_type_are_the_same_news_and_a_critical_one_is_news_again() -> None:
    def key(message: object, **fields: object) -> str:
        return defaults.dedup_key(decoded(message, **fields))  # type: ignore[arg-type]

    asked = facts.IncidentEscalated(type="plugin_down", severity=facts.SEVERITY_HIGH)
    again = facts.IncidentReopened(type="plugin_down", severity=facts.SEVERITY_HIGH, escalated=True)
    assert key(asked, incident="i1") == key(again, incident="i1") == key(asked, incident="i2")
    other = facts.IncidentEscalated(type="error_spike", severity=facts.SEVERITY_HIGH)
    assert key(other, incident="i1") != key(asked, incident="i1")
    assert key(asked, plugin="another") != key(asked)
    worse = facts.IncidentEscalated(type="plugin_down", severity=facts.SEVERITY_CRITICAL)
    assert key(worse, incident="i1") != key(asked, incident="i1")
