"""Facts as events: the message of a fact is filled, field by field, with the values known under the same names.

Rule: each field of a message has a value of its name, or building it fails; a new field of a fact is one entry here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from libs.common import names
from libs.common.bus import fact
from prunella.v1 import events_pb2
from prunella.v1.events_pb2 import Event
from services.patcher import approvals, attempt, rollout
from services.patcher.approvals import Approval, ApprovalEvent, Subject
from services.patcher.attempt import Attempt, Staged
from services.patcher.rollout import Rollout, figures
from services.patcher.verdict import Verdict
from services.patcher.watch import Watch
from services.patcher.wire.scalars import ACTIONS, duration, timestamp

SOURCE = "patcher"
FACTS = Event.DESCRIPTOR.oneofs_by_name["fact"].fields
MESSAGES: dict[str, Any] = {one.name: getattr(events_pb2, one.message_type.name) for one in FACTS if one.message_type}
OUTCOMES = {
    ApprovalEvent.GRANTED: "approved",
    ApprovalEvent.REJECTED: "rejected",
    ApprovalEvent.EXPIRED: "expired",
    ApprovalEvent.VOIDED: "void",
}


def _message(name: str, values: Mapping[str, Any]) -> Message:
    kind = MESSAGES[name]
    made: Message = kind(**{field: values[field] for field in kind.DESCRIPTOR.fields_by_name})
    return made


def attempt_event(happened: attempt.Fact, found: Attempt, cause: Event | None) -> Event:
    """The event that reports a fact of an attempt; to_release of a config_fix is its configuration's version."""
    values = {
        "attempt": found.id,
        "decision": found.decision,
        "round": found.round,
        "action": ACTIONS[found.action],
        "from_release": found.from_release,
        "to_release": found.target,
        "generation": found.generation,
        "probation_until_time": timestamp(found.commit_deadline),
        "verdict": verdict(found.verdict) if found.verdict else None,
        "gate": happened.gate,
        "failure": happened.failure,
        "dead_man": happened.dead_man,
        "never_switched": happened.never_switched,
        "healed_by_itself": happened.healed_by_itself,
    }
    message = staged(found) if happened.event is attempt.AttemptEvent.STAGED else _message(happened.event, values)
    return fact(
        SOURCE,
        message,
        actor=happened.actor,
        reason=happened.reason or found.reason or happened.event.value,
        plugin=found.plugin,
        merchant=found.merchant,
        incident=found.incident,
        cause=cause,
    )


def staged(found: Attempt) -> events_pb2.AttemptStaged:
    """What staging said, as callers see it."""
    result = found.staging or Staged(False, 0, 0, 0.0)
    return events_pb2.AttemptStaged(
        attempt=found.id,
        passed=result.passed,
        tests_passed=result.tests_passed,
        tests_run=result.tests_run,
        duration=duration(result.seconds),
        cached=result.cached,
        failures=result.failures,
        isolation=result.isolation,
        runs=result.runs,
        first_failure=result.first_failure,
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


def watch_ended(ended: Watch, found: Attempt, seen: Verdict | None, rollback: str) -> Event:
    """The event that reports the end of a watch; `rollback` is the attempt that takes the remedy back."""
    message = events_pb2.AttemptWatchEnded(
        attempt=found.id,
        decision=found.decision,
        action=ACTIONS[found.action],
        from_release=found.from_release,
        to_release=found.target,
        generation=ended.generation,
        round=found.round,
        outcome=ended.state.value,
        verdict=verdict(seen) if seen else None,
        rollback=rollback,
    )
    return fact(
        SOURCE,
        message,
        reason=ended.reason or ended.state.value,
        plugin=found.plugin,
        merchant=found.merchant,
        incident=found.incident,
    )


def rollout_event(happened: rollout.Fact, found: Rollout, cause: Event | None) -> Event:
    """The event that reports a fact of a rollout, with its plugins by state."""
    known = figures(found)
    counts = {name: getattr(known, name) for name in events_pb2.RolloutCounts.DESCRIPTOR.fields_by_name}
    values = {
        "rollout": found.id,
        "package": found.package,
        "target": found.target,
        "wave": happened.wave,
        "counts": events_pb2.RolloutCounts(**counts),
    }
    message = _message(happened.event, values)
    return fact(SOURCE, message, actor=happened.actor, reason=happened.reason or happened.event.value, cause=cause)


def approval_events(
    happened: approvals.Fact, found: Approval, before: str, subject: Subject, cause: Event | None
) -> Iterator[Event]:
    """The events that report a fact of an approval; `before` is the hash of the plan that was in force."""
    plan_hash = before if happened.event is ApprovalEvent.VOIDED else found.plan_hash
    if outcome := OUTCOMES.get(happened.event):
        yield approval_ended(subject, plan_hash, outcome, happened.reason, cause, happened.actor)
    else:
        values = _approval(found, subject, happened)
        name = {ApprovalEvent.REQUESTED: "approval_requested", ApprovalEvent.VOTED: "approval_given"}
        message = _message(name.get(happened.event, "approval_overdue"), values)
        yield _about(subject, message, happened.reason, cause, happened.actor)
    if happened.event is ApprovalEvent.VOIDED:
        message = _message("approval_requested", _approval(found, subject, happened))
        yield _about(subject, message, "people are asked about the changed plan", cause)


def approval_ended(
    subject: Subject, plan_hash: str, outcome: str, reason: str, cause: Event | None, actor: str = ""
) -> Event:
    """The event that reports an end: approved, rejected, expired, void or withdrawn."""
    message = events_pb2.ApprovalEnded(subject=subject.name, plan_hash=plan_hash, outcome=outcome)
    return _about(subject, message, reason, cause, actor)


def _approval(found: Approval, subject: Subject, happened: approvals.Fact) -> dict[str, Any]:
    roles = {vote.operator: next(iter(sorted(vote.roles)), "") for vote in reversed(found.votes)}
    return {
        "subject": subject.name,
        "plan_hash": found.plan_hash,
        "quorum": found.quorum.size,
        "roles": found.quorum.seats,
        "role": roles.get(happened.actor, ""),
        "approvals": sum(vote.approved for vote in found.votes),
        "expire_time": timestamp(found.expire_time),
        "escalated": happened.event is ApprovalEvent.ESCALATED,
    }


def _about(subject: Subject, message: Message, reason: str, cause: Event | None, actor: str = "") -> Event:
    return fact(
        SOURCE,
        message,
        actor=names.operator(actor) if actor else "",
        reason=reason,
        plugin=subject.plugin,
        merchant=subject.merchant,
        incident=subject.incident,
        cause=cause,
    )
