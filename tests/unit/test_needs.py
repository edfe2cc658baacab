"""What people are asked for: opened by one fact, ended by another, each with a line to type."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from libs.common.facts import NAMES
from prunella.v1 import events_pb2 as facts
from prunella.v1.events_pb2 import Event
from services.ops import needs, wire
from services.ops.needs import KINDS, NEEDS, Need
from tests.unit.healing_facts import (
    INCIDENT,
    PLUGIN,
    START,
    closed,
    escalated,
    event,
    mitigated,
    rolled_back,
    succeeded,
)


def needed(told: Event) -> list[Need]:
    return needs.needs(
        wire.told(told, "shop-7"), incident=told.incident, plugin=told.plugin, at=told.time.ToDatetime(UTC)
    )


def of(message: Message, **fields: Any) -> list[Need]:
    return needed(event(1, message, **fields))


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
    "rollout": [event(2, facts.RolloutResumed(rollout="r1")), event(2, facts.RolloutAborted(rollout="r1"))],
    "report": [event(2, facts.ReportResolved(report="e1")), event(2, facts.TaskRetried(task="t", report="e1"))],
    "proposal": [event(2, facts.ProposalDecided(proposal="p1"))],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_opened_with_a_line_and_a_command(kind: str) -> None:
    (found,) = [need for need in needed(OPENING[kind]) if need.wanted]
    assert found.kind == kind
    assert found.subject
    assert found.line and "\n" not in found.line
    assert found.command.startswith("prunella ")
    assert 1 <= found.severity <= 4


@pytest.mark.parametrize("kind", sorted(ENDING))
def test_each_kind_is_ended_by_what_follows(kind: str) -> None:
    (wanted,) = [need for need in needed(OPENING[kind]) if need.wanted]
    for fact in ENDING[kind]:
        ends = [need for need in needed(fact) if (need.kind, need.subject) == (kind, wanted.subject)]
        assert [need.wanted for need in ends] == [False], fact.WhichOneof("fact")


def test_the_table_names_facts_that_exist() -> None:
    assert set(NEEDS) <= NAMES


def test_a_plan_that_changed_stays_asked_about() -> None:
    assert of(facts.ApprovalEnded(subject="attempts/a1", outcome="void")) == []


def test_approvals_of_rollouts_are_typed_with_their_collection() -> None:
    (found,) = of(facts.ApprovalRequested(subject="rollouts/r1", quorum=1), plugin="", incident="")
    assert found.command == 'prunella approve rollouts/r1 --reason "…"'


def test_the_severity_of_an_incident_is_its_own_and_a_global_stop_is_critical() -> None:
    assert needed(escalated(1))[0].severity == needs.MEDIUM
    assert needed(OPENING["kill_switch"])[0].severity == needs.CRITICAL
    assert needed(OPENING["kill_switch"])[0].command == 'prunella kill-switch release --scope global --reason "…"'
    assert of(facts.KillSwitchEngaged(scope="merchants/m"))[0].severity == needs.HIGH


def test_what_nobody_can_end_runs_out() -> None:
    (halted,) = of(facts.RolloutHalted(rollout="r1"))
    assert halted.until == START + timedelta(seconds=1) + needs.SHOWN
    alone = [n for n in of(facts.AttemptRollbackFailed(attempt="a1"), incident="") if n.wanted]
    assert alone[0].until == START + timedelta(seconds=1) + needs.WEEK
    assert needed(escalated(1))[0] == Need(
        "incident",
        INCIDENT,
        True,
        2,
        "shop-7: webhook_fail_rate is yours now · 3 rounds did not help",
        f"prunella stories show {INCIDENT}",
    )
    assert PLUGIN in needed(OPENING["quarantine"])[0].command
