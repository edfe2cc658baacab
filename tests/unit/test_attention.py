"""What needs attention: raised by one fact, cleared by another, each with a line to type."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from libs.common.facts import NAMES
from prunella.v1 import events_pb2 as facts
from prunella.v1.events_pb2 import Event
from services.ops import attention, wire
from services.ops.attention import CLEARING, KINDS, RAISING, AttentionItem
from services.ops.severity import Severity
from tests.unit.healing_facts import (
    INCIDENT,
    MERCHANT,
    PLUGIN,
    START,
    closed,
    escalated,
    event,
    mitigated,
    rolled_back,
    succeeded,
)


def items(event: Event) -> list[AttentionItem]:
    return attention.attention(wire.decoded_fact(event, "shop-7"))


def of(message: Message, **fields: Any) -> list[AttentionItem]:
    return items(event(1, message, **fields))


OPENING = {
    "incident": escalated(1),
    "approval": event(1, facts.ApprovalRequested(subject="attempts/a1", quorum=2)),
    "unconfirmed": event(1, facts.AttemptUnconfirmed(attempt="a1")),
    "rollback_failed": event(1, facts.AttemptRollbackFailed(attempt="a1", to_release="1.2.3")),
    "kill_switch": event(1, facts.KillSwitchEngaged(scope="global"), actor="operators/ada"),
    "storm": event(1, facts.StormStarted(storm="s1", package="relay", type="plugin_down", plugins=9, fleet=30)),
    "rollout": event(1, facts.RolloutPaused(rollout="r1", package="relay", target="1.3.0")),
    "report": event(1, facts.ReportEscalated(report="e1", type="timeout", severity=facts.SEVERITY_HIGH)),
    "proposal": event(1, facts.ProposalCreated(proposal="p1", action="approve_strategy", target="strategies/x")),
    "quarantine": event(1, facts.PluginQuarantined()),
    "audit": event(1, facts.AuditViolated(event="e1")),
}
ENDING = {
    "incident": [mitigated(2), closed(2)],
    "approval": [
        event(2, facts.ApprovalEnded(subject="attempts/a1", outcome="approved")),
        event(2, facts.AttemptCancelled(attempt="a1")),
    ],
    "unconfirmed": [succeeded(2), rolled_back(2), event(2, facts.AttemptRollbackFailed(attempt="a1"))],
    "rollback_failed": [rolled_back(2)],
    "kill_switch": [event(2, facts.KillSwitchReleased(scope="global"))],
    "storm": [event(2, facts.StormEnded(storm="s1"))],
    "rollout": [
        event(2, facts.RolloutResumed(rollout="r1")),
        event(2, facts.RolloutAborted(rollout="r1"), actor="operators/ada"),
    ],
    "report": [event(2, facts.ReportResolved(report="e1")), event(2, facts.TaskRetried(task="t", report="e1"))],
    "proposal": [event(2, facts.ProposalDecided(proposal="p1"))],
    "quarantine": [event(2, facts.QuarantineReleased())],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_opened_with_a_line_and_a_command(kind: str) -> None:
    (found,) = [item for item in items(OPENING[kind]) if item.active]
    assert found.kind == kind
    assert found.subject
    assert found.line and "\n" not in found.line
    assert found.command.startswith("prunella ")
    assert 1 <= found.severity <= 4


@pytest.mark.parametrize("kind", sorted(ENDING))
def test_each_kind_is_ended_by_what_follows(kind: str) -> None:
    (raised,) = [item for item in items(OPENING[kind]) if item.active]
    for fact in ENDING[kind]:
        ends = [item for item in items(fact) if (item.kind, item.subject) == (kind, raised.subject)]
        assert [item.active for item in ends] == [False], fact.WhichOneof("fact")


def test_the_table_names_facts_that_exist() -> None:
    assert set(RAISING) <= NAMES
    assert set(CLEARING) <= NAMES


def test_every_fact_either_raises_or_clears() -> None:
    assert not set(RAISING) & set(CLEARING)


def test_a_rollout_that_nobody_went_on_with_needs_somebody_and_one_that_a_person_ended_does_not() -> None:
    (left,) = [item for item in items(event(2, facts.RolloutAborted(rollout="r1"), actor="patcher")) if item.active]
    assert (left.kind, left.command) == ("rollout", "prunella rollout show r1")
    assert left.expire_time == left.time + attention.SHOWN
    assert not any(item.active for item in of(facts.RolloutAborted(rollout="r1"), actor="operators/ada"))


def test_what_comes_back_is_an_item_only_while_it_is_a_persons() -> None:
    assert of(facts.IncidentReopened(type="webhook_fail_rate", reopened=1)) == []
    back = facts.IncidentReopened(type="plugin_down", reopened=3, escalated=True, flapping=True)
    (found,) = of(back)
    assert (found.kind, found.subject, found.active) == ("incident", INCIDENT, True)
    assert "is flapping" in found.line
    assert "3 times by now" in found.line


def test_a_second_question_about_a_plan_is_the_same_item() -> None:
    (first,) = of(facts.ApprovalRequested(subject="attempts/a1", quorum=2))
    (again,) = of(facts.ApprovalOverdue(subject="attempts/a1"))
    assert (again.kind, again.subject) == (first.kind, first.subject)
    assert "nobody has answered" in again.line


def test_withdrawing_a_question_ends_it() -> None:
    (found,) = of(facts.ApprovalEnded(subject="attempts/a1", outcome="withdrawn"))
    assert (found.kind, found.active) == ("approval", False)


def test_a_plan_that_changed_stays_asked_about() -> None:
    assert of(facts.ApprovalEnded(subject="attempts/a1", outcome="void")) == []


def test_approvals_of_rollouts_are_typed_with_their_collection() -> None:
    (found,) = of(facts.ApprovalRequested(subject="rollouts/r1", quorum=1), plugin="", incident="")
    assert found.command == 'prunella approve rollouts/r1 --reason "…"'


def test_the_severity_of_an_incident_is_its_own_and_a_global_stop_is_critical() -> None:
    assert items(escalated(1))[0].severity == Severity.MEDIUM
    assert items(OPENING["kill_switch"])[0].severity == Severity.CRITICAL
    assert items(OPENING["kill_switch"])[0].command == 'prunella kill-switch release --scope global --reason "…"'
    assert of(facts.KillSwitchEngaged(scope="merchants/m"))[0].severity == Severity.HIGH


def test_what_nobody_can_end_runs_out() -> None:
    (halted,) = of(facts.RolloutHalted(rollout="r1"))
    assert halted.expire_time == START + timedelta(seconds=1) + attention.SHOWN
    alone = [n for n in of(facts.AttemptRollbackFailed(attempt="a1"), incident="") if n.active]
    assert alone[0].expire_time == START + timedelta(seconds=1) + attention.WEEK
    assert items(escalated(1))[0] == AttentionItem(
        "incident",
        INCIDENT,
        True,
        START + timedelta(seconds=1),
        INCIDENT,
        PLUGIN,
        MERCHANT,
        2,
        "shop-7: webhook_fail_rate is yours now · 3 rounds did not help",
        f"prunella stories show {INCIDENT}",
    )
    assert PLUGIN in items(OPENING["quarantine"])[0].command
