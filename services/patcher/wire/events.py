"""What is told: facts of attempts as events."""

from typing import Any

from google.protobuf.message import Message

from libs.common.bus import fact
from prunella.v1 import events_pb2
from prunella.v1.events_pb2 import Event
from services.patcher.attempt import Attempt, AttemptEvent, Fact, Staged
from services.patcher.verdict import Verdict
from services.patcher.wire.scalars import ACTIONS, duration, timestamp

SOURCE = "patcher"


def event(told: Fact, attempt: Attempt, cause: Event | None) -> Event:
    """The event that tells a fact of an attempt."""
    return fact(
        SOURCE,
        _message(told, attempt),
        actor=told.actor,
        reason=told.reason or attempt.reason or told.event.value,
        plugin=attempt.plugin,
        merchant=attempt.merchant,
        incident=attempt.incident,
        cause=cause,
    )


def _message(told: Fact, attempt: Attempt) -> Message:
    own: dict[str, Any] = {"attempt": attempt.id, "decision": attempt.decision, "round": attempt.round}
    both = own | {"from_release": attempt.from_release, "to_release": attempt.target}
    action = ACTIONS[attempt.action]
    judged = verdict(attempt.verdict) if attempt.verdict else None
    match told.event:
        case AttemptEvent.CREATED:
            return events_pb2.AttemptCreated(**both, action=action)
        case AttemptEvent.REFUSED:
            return events_pb2.AttemptRefused(**own, gate=told.gate, action=action, to_release=attempt.target)
        case AttemptEvent.HELD:
            return events_pb2.AttemptHeld(attempt=attempt.id, gate=told.gate)
        case AttemptEvent.STAGED:
            return staged(attempt)
        case AttemptEvent.APPLIED:
            until = timestamp(attempt.commit_deadline)
            return events_pb2.AttemptApplied(
                attempt=attempt.id, generation=attempt.generation, probation_until_time=until
            )
        case AttemptEvent.COMMITTING:
            return events_pb2.AttemptCommitting(attempt=attempt.id, verdict=judged)
        case AttemptEvent.ROLLING_BACK:
            return events_pb2.AttemptRollingBack(attempt=attempt.id, verdict=judged)
        case AttemptEvent.SUCCEEDED:
            return events_pb2.AttemptSucceeded(**both, action=action, generation=attempt.generation, verdict=judged)
        case AttemptEvent.ROLLED_BACK:
            return events_pb2.AttemptRolledBack(
                **both, action=action, dead_man=told.dead_man, failure=told.failure, unswitched=told.unswitched
            )
        case _:
            return _ending(told, attempt, own)


def _ending(told: Fact, attempt: Attempt, own: dict[str, Any]) -> Message:
    match told.event:
        case AttemptEvent.ROLLBACK_FAILED:
            return events_pb2.AttemptRollbackFailed(**own, to_release=attempt.target)
        case AttemptEvent.UNCONFIRMED:
            return events_pb2.AttemptUnconfirmed(**own, to_release=attempt.target)
        case AttemptEvent.FAILED:
            action = ACTIONS[attempt.action]
            return events_pb2.AttemptFailed(**own, action=action, to_release=attempt.target, failure=told.failure)
        case AttemptEvent.CANCELLED:
            return events_pb2.AttemptCancelled(**own)
        case _:
            raise AssertionError(told.event)


def staged(attempt: Attempt) -> events_pb2.AttemptStaged:
    """What staging said, as callers see it."""
    result = attempt.staging or Staged(False, 0, 0, 0.0)
    return events_pb2.AttemptStaged(
        attempt=attempt.id,
        passed=result.passed,
        tests_passed=result.tests_passed,
        tests_run=result.tests_run,
        duration=duration(result.seconds),
        cached=result.cached,
        failures=result.failures,
    )


def verdict(found: Verdict) -> events_pb2.Verdict:
    """A verdict as callers see it."""
    return events_pb2.Verdict(
        result=found.result.value,
        explanation=found.explanation,
        beats=found.beats,
        error_rate_before=found.before,
        error_rate_after=found.after,
        control_error_rate=found.control,
        low_evidence=found.low_evidence,
    )
