"""The decider hears facts and decides or learns, exactly once, whatever the bus does to them."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.names import new_id
from prunella.v1 import decider_pb2, events_pb2
from tests.service.decider_alone import TRACE, DeciderAlone


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[DeciderAlone]:
    decider = DeciderAlone(backing)
    try:
        yield await decider.start()
    finally:
        await decider.stop()


async def settled(alone: DeciderAlone, *events: events_pb2.Event) -> None:
    """Waits until the decider is done with the facts."""

    async def received() -> bool:
        rows = await alone.plane.sql("SELECT event_id FROM bus.inbox WHERE consumer = 'decider'")
        return {event.id for event in events} <= {str(row.event_id) for row in rows}

    await until(received, what="the facts are in the decider's inbox")


async def rows(alone: DeciderAlone, table: str) -> list[Any]:
    return list(await alone.plane.sql(f"SELECT * FROM decider.{table}"))  # noqa: S608 - names of ours


async def decided(alone: DeciderAlone, **changes: Any) -> events_pb2.Event:
    """An incident that was decided on."""
    incident, _ = await alone.open_incident(**changes)
    return await until(lambda: alone.plane.facts("decision_made", incident=incident), what="a decision")  # type: ignore[no-any-return]


async def test_the_worked_example_is_decided_with_everything_that_was_considered(alone: DeciderAlone) -> None:
    incident, opened = await alone.open_incident()
    event = await alone.plane.wait_for_fact("decision_made")
    made = event.decision_made
    assert (made.action, made.release, made.confidence) == (events_pb2.ACTION_PATCH, "1.2.3", 0.87)
    assert (made.origin, made.propensity, made.round, made.generation) == ("playbook", 1.0, 1, 3)
    assert (made.type, made.severity, made.from_release) == ("webhook_fail_rate", events_pb2.SEVERITY_MEDIUM, "1.2.0")
    assert list(made.evidence.failing_inputs) == ['{"card": "4111"}']
    assert (event.source, event.cause_id, event.incident) == ("decider", opened.id, incident)
    assert (event.plugin, event.merchant) == ("p1", "m1")
    assert event.reason == made.explanation
    stored = (await alone.stub.GetDecision(decider_pb2.GetDecisionRequest(name=f"decisions/{made.decision}"))).decision
    assert stored.trace_id == TRACE.split("-")[1]
    assert stored.versions == {"playbook": alone.ctx.playbook.version, "choice": "2", "policy": "7"}
    assert stored.features["figure.webhook_fail_rate"] == "0.6"
    assert [(candidate.origin, candidate.propensity) for candidate in stored.candidates] == [
        ("playbook", 1.0),
        ("fallback", 0.0),
        ("fallback", 0.0),
    ]


async def test_the_fact_carries_the_trace_of_the_incident(alone: DeciderAlone) -> None:
    await alone.open_incident()
    made = await alone.plane.wait_for_fact("decision_made")
    (row,) = await alone.plane.sql("SELECT traceparent FROM bus.facts WHERE id = CAST(:id AS uuid)", id=made.id)
    assert row.traceparent.split("-")[1] == TRACE.split("-")[1]


async def test_an_incident_told_again_and_again_has_one_decision(alone: DeciderAlone) -> None:
    incident, opened = await alone.open_incident()
    await alone.plane.wait_for_fact("decision_made")
    consumer = next(part for part in alone.plane.services["decider"].parts if hasattr(part, "handle"))
    # The same fact from the table, twice at once, and another fact about the same round.
    await asyncio.gather(*(consumer.handle(opened, TRACE, redelivered=True) for _ in range(3)))
    _, other = await alone.open_incident(incident=incident)
    await settled(alone, opened, other)
    assert len(await rows(alone, "decisions")) == 1
    assert len(await alone.plane.facts("decision_made")) == 1


@pytest.mark.parametrize(("state", "number"), [("closed", 1), ("escalated", 1), ("mitigated", 1), ("open", 2)])
async def test_an_incident_that_has_ended_or_moved_on_is_left_alone(
    alone: DeciderAlone, state: str, number: int
) -> None:
    _, opened = await alone.open_incident(state=state, standing_round=number)
    await settled(alone, opened)
    assert not await rows(alone, "decisions")
    assert not await alone.plane.facts("decision_made")


async def test_an_unknown_incident_is_left_alone(alone: DeciderAlone) -> None:
    incident = new_id()
    alone.ingest.incidents.clear()
    opened = await alone.record(events_pb2.IncidentOpened(type="error_spike", round=1, package="a"), incident=incident)
    await settled(alone, opened)
    assert not await rows(alone, "decisions")


async def test_while_ingest_is_away_nothing_is_decided_and_nothing_is_lost(alone: DeciderAlone) -> None:
    alone.ingest.away = True
    _, opened = await alone.open_incident()
    await until(lambda: alone.ingest.questions >= 2, what="the decider asked")
    assert not await rows(alone, "decisions")
    alone.ingest.away = False
    await alone.plane.wait_for_fact("decision_made")
    await settled(alone, opened)
    assert not await alone.plane.sql("SELECT 1 FROM bus.dead_letters")


async def test_the_next_round_is_decided_without_what_was_tried(alone: DeciderAlone) -> None:
    incident, _ = await alone.open_incident(type="plugin_down", evidence=events_pb2.Evidence(summary="down"))
    first = await alone.plane.wait_for_fact("decision_made")
    alone.ingest.incidents[incident] = ("open", 2)
    told = events_pb2.IncidentRoundStarted(
        type="plugin_down",
        severity=events_pb2.SEVERITY_HIGH,
        round=2,
        package="checkout",
        release="1.2.0",
        tried=[events_pb2.TriedRemedy(action=events_pb2.ACTION_RESTART, outcome="rolled_back", reason="still down")],
    )
    started = await alone.record(told, incident=incident)
    second = await alone.plane.wait_for_fact("decision_made", times=2)
    assert first.decision_made.action == events_pb2.ACTION_RESTART
    assert (second.decision_made.action, second.decision_made.round) == (events_pb2.ACTION_ROLLBACK, 2)
    # The first round's fact, late, changes nothing.
    _, late = await alone.open_incident(incident=incident, standing_round=2)
    await settled(alone, started, late)
    assert len(await rows(alone, "decisions")) == 2


async def test_a_success_and_a_roll_back_are_learned_once_in_any_order(alone: DeciderAlone) -> None:
    (made,) = await decided(alone)
    decision = made.decision_made.decision
    success = events_pb2.AttemptSucceeded(attempt="a1", decision=decision)
    taken_back = events_pb2.AttemptRolledBack(attempt="a2", decision=decision, failure="verdict")
    told = [await alone.record(message, source="patcher") for message in (taken_back, success, success, taken_back)]
    await settled(alone, *told)
    (learned,) = await rows(alone, "outcomes")
    assert (learned.package, learned.symptom, learned.from_release) == ("checkout", "webhook_fail_rate", "1.2.0")
    assert (learned.action, learned.to_release, learned.successes, learned.failures) == ("patch", "1.2.3", 1, 1)
    saved = sorted((row.attempt, row.outcome, row.label) for row in await rows(alone, "feedback"))
    assert saved == [("a1", "success", "positive"), ("a2", "rolled_back", "negative")]


async def test_with_learning_switched_off_an_outcome_is_kept_and_teaches_nothing(alone: DeciderAlone) -> None:
    (made,) = await decided(alone)
    alone.patcher.learning = False
    # What was heard of the policy a moment ago is believed for a second.
    alone.ctx.policy._refresh_time = -math.inf
    success = events_pb2.AttemptSucceeded(attempt="a1", decision=made.decision_made.decision)
    await settled(alone, await alone.record(success, source="patcher"))
    (saved,) = await rows(alone, "feedback")
    assert (saved.outcome, saved.label) == ("success", "neutral")
    assert not await rows(alone, "outcomes")


@pytest.mark.parametrize(
    ("message", "outcome", "label", "counted_under"),
    [
        (events_pb2.AttemptFailed(failure="staging_failed"), "staging_failed", "negative", "*"),
        (events_pb2.AttemptFailed(failure="command_failed"), "command_failed", "negative", "webhook_fail_rate"),
        (events_pb2.AttemptFailed(failure="command_expired"), "command_expired", "neutral", None),
        (events_pb2.AttemptRefused(gate="KILL_SWITCH"), "refused", "neutral", None),
        (events_pb2.AttemptCancelled(), "cancelled", "neutral", None),
        (events_pb2.AttemptRolledBack(dead_man=True), "reverted_alone", "neutral", None),
        (events_pb2.AttemptRollbackFailed(), "rollback_failed", "negative", "webhook_fail_rate"),
    ],
)
async def test_every_end_of_an_attempt_is_kept_and_counted_as_what_it_says(
    alone: DeciderAlone, message: Any, outcome: str, label: str, counted_under: str | None
) -> None:
    (made,) = await decided(alone)
    message.attempt, message.decision = "a1", made.decision_made.decision
    await settled(alone, await alone.record(message, source="patcher"))
    (saved,) = await rows(alone, "feedback")
    assert (saved.outcome, saved.label, saved.reason) == (outcome, label, "a test says so")
    assert [row.symptom for row in await rows(alone, "outcomes")] == ([counted_under] if counted_under else [])


async def test_a_release_that_fails_in_staging_loses_confidence_for_every_symptom(alone: DeciderAlone) -> None:
    (made,) = await decided(alone)
    before = made.decision_made.confidence
    for attempt in ("a1", "a2"):
        failed = events_pb2.AttemptFailed(
            attempt=attempt, decision=made.decision_made.decision, failure="staging_failed"
        )
        await settled(alone, await alone.record(failed, source="patcher"))
    (again,) = await decided(alone, plugin="p2")
    assert again.decision_made.confidence < 0.75 < before
    preview = await alone.stub.GetLearning(
        decider_pb2.GetLearningRequest(package="checkout", type="error_spike", from_release="7")
    )
    assert [(entry.release, entry.failures) for entry in preview.outcomes] == [("1.2.3", 2)]


async def test_an_attempt_without_a_decision_of_ours_teaches_nothing(alone: DeciderAlone) -> None:
    own = await alone.record(events_pb2.AttemptSucceeded(attempt="a1"), source="patcher")
    unknown = await alone.record(events_pb2.AttemptSucceeded(attempt="a2", decision=new_id()), source="patcher")
    odd = await alone.record(events_pb2.AttemptSucceeded(attempt="a3", decision="no uuid"), source="patcher")
    await settled(alone, own, unknown, odd)
    assert not await rows(alone, "feedback")


async def test_two_replicas_decide_on_each_incident_once(alone: DeciderAlone) -> None:
    from libs.common.settings import load
    from services.decider.context import Settings
    from services.decider.service import build

    environ = alone.plane.settings("decider") | {
        "PRUNELLA_LISTEN": "127.0.0.1:0",
        "PRUNELLA_HTTP_LISTEN": "127.0.0.1:0",
    }
    replica = build(load(Settings, environ), alone.clock)
    await replica.start()
    try:
        events = [(await alone.open_incident(plugin=f"p{number}"))[1] for number in range(30)]
        await settled(alone, *events)
        await until(lambda: alone.plane.facts("decision_made"))
    finally:
        await replica.stop()
    told = [event.incident for event in await alone.plane.facts("decision_made")]
    assert sorted(told) == sorted(event.incident for event in events)
    assert len(await rows(alone, "decisions")) == 30
