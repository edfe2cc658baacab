"""Protobuf ⇄ dataclasses. The only file that sees both; it parses or raises Invalid."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import names
from libs.common.bus import fact
from libs.common.errors import Invalid
from libs.common.telemetry.context import trace_id
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event
from services.patcher.attempt import Attempt, CommandFinished, Fact, Outcome, Staged, Step, Told
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import EDITABLE, Action, Policy, Severity, check
from services.patcher.store.kill_switches import KillSwitch
from services.patcher.store.permits import Question
from services.patcher.store.releases import Release
from services.patcher.verdict import Sums, Verdict

SOURCE = "patcher"
ACTIONS = {
    Action.PATCH: events_pb2.ACTION_PATCH,
    Action.CONFIG_FIX: events_pb2.ACTION_CONFIG_FIX,
    Action.ROLLBACK: events_pb2.ACTION_ROLLBACK,
    Action.RESTART: events_pb2.ACTION_RESTART,
}
ACTIVE = {number: action for action, number in ACTIONS.items()}
KINDS = {
    "update": agent_pb2.COMMAND_KIND_UPDATE,
    "rollback": agent_pb2.COMMAND_KIND_ROLLBACK,
    "restart": agent_pb2.COMMAND_KIND_RESTART,
    "health_check": agent_pb2.COMMAND_KIND_HEALTH_CHECK,
    "commit": agent_pb2.COMMAND_KIND_COMMIT,
    "config_update": agent_pb2.COMMAND_KIND_CONFIG_UPDATE,
}
HEALTH = {
    agent_pb2.HEALTH_HEALTHY: "healthy",
    agent_pb2.HEALTH_UNHEALTHY: "unhealthy",
    agent_pb2.HEALTH_DOWN: "down",
    agent_pb2.HEALTH_STARTING: "starting",
}
DURATIONS = frozenset(field.name for field in fields(Policy) if isinstance(field.default, timedelta))
LISTS = frozenset({"autopatch_merchants", "canary_merchants", "multisig_roles", "multisig_approvers"})


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment as callers see it."""
    if moment is None:
        return None
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def duration(seconds: float) -> Duration:
    """A length of time as callers see it."""
    told = Duration()
    told.FromTimedelta(timedelta(seconds=seconds))
    return told


def moment(told: Timestamp) -> datetime:
    """A told moment, aware."""
    return told.ToDatetime(UTC)


# What is told.


def event(told: Fact, attempt: Attempt, cause: Event | None) -> Event:
    """The event that tells a fact of an attempt."""
    return fact(
        SOURCE,
        _message(told, attempt),
        actor=told.actor,
        reason=told.reason or attempt.reason or told.told.value,
        plugin=attempt.plugin,
        merchant=attempt.merchant,
        incident=attempt.incident,
        cause=cause,
    )


def _message(told: Fact, attempt: Attempt) -> Message:
    own: dict[str, Any] = {"attempt": attempt.id, "decision": attempt.decision, "round": attempt.round}
    both = own | {"from_release": attempt.from_release, "to_release": attempt.to_release}
    action = ACTIONS[attempt.action]
    judged = verdict(attempt.verdict) if attempt.verdict else None
    match told.told:
        case Told.CREATED:
            return events_pb2.AttemptCreated(**both, action=action)
        case Told.REFUSED:
            return events_pb2.AttemptRefused(**own, gate=told.gate, action=action, to_release=attempt.to_release)
        case Told.HELD:
            return events_pb2.AttemptHeld(attempt=attempt.id, gate=told.gate)
        case Told.STAGED:
            return staged(attempt)
        case Told.APPLIED:
            until = timestamp(attempt.last_commit)
            return events_pb2.AttemptApplied(
                attempt=attempt.id, generation=attempt.generation, probation_until_time=until
            )
        case Told.COMMITTING:
            return events_pb2.AttemptCommitting(attempt=attempt.id, verdict=judged)
        case Told.ROLLING_BACK:
            return events_pb2.AttemptRollingBack(attempt=attempt.id, verdict=judged)
        case Told.SUCCEEDED:
            return events_pb2.AttemptSucceeded(**both, action=action, generation=attempt.generation, verdict=judged)
        case Told.ROLLED_BACK:
            return events_pb2.AttemptRolledBack(**both, action=action, dead_man=told.dead_man, failure=told.failure)
        case _:
            return _ending(told, attempt, own)


def _ending(told: Fact, attempt: Attempt, own: dict[str, Any]) -> Message:
    match told.told:
        case Told.ROLLBACK_FAILED:
            return events_pb2.AttemptRollbackFailed(**own, to_release=attempt.to_release)
        case Told.UNCONFIRMED:
            return events_pb2.AttemptUnconfirmed(**own, to_release=attempt.to_release)
        case Told.FAILED:
            action = ACTIONS[attempt.action]
            return events_pb2.AttemptFailed(**own, action=action, to_release=attempt.to_release, failure=told.failure)
        case Told.CANCELLED:
            return events_pb2.AttemptCancelled(**own)
        case _:
            raise AssertionError(told.told)


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


# What is heard.


def command_finished(heard: Event) -> tuple[str, CommandFinished]:
    """The attempt and the agent's word in a fact."""
    told = heard.command_finished
    try:
        outcome = Outcome(told.outcome)
    except ValueError as error:
        raise Invalid(f"unknown outcome {told.outcome!r}", reason="OUTCOME_UNKNOWN", field="outcome") from error
    word = CommandFinished(
        command=told.command,
        kind=told.kind,
        generation=told.generation,
        fence=told.fence,
        outcome=outcome,
        detail=told.detail,
        time=moment(heard.time),
        unasked=told.unasked,
    )
    return told.attempt, word


def sums(told: ingest_pb2.TelemetrySums) -> Sums:
    """Counters of a group."""
    seconds = told.duration.ToTimedelta().total_seconds()
    return Sums(told.beats, told.errors, told.webhook_attempts, told.webhook_failures, seconds)


def severity(told: int) -> Severity:
    """A severity; unknown numbers are UNKNOWN and pass no cap."""
    return Severity(told) if told in set(Severity) else Severity.UNKNOWN


def question(request: patcher_pb2.AuthorizeApplyRequest) -> Question:
    """The switch an agent asks for. Raises Invalid for a missing part."""
    for field in ("plugin", "command", "attempt", "request_id"):
        text = getattr(request, field)
        if not text or len(text) > 200:
            raise Invalid(f"{field} must be given, up to 200 characters", reason="FIELD_MISSING", field=field)
    return Question(
        request.request_id, request.plugin, request.attempt, request.command, request.generation, request.fence
    )


# What is asked and answered.


def attempt_of(found: Attempt, steps: list[tuple[datetime, Step]] | None = None) -> patcher_pb2.Attempt:
    """An attempt as callers see it."""
    return patcher_pb2.Attempt(
        name=names.attempt(found.id),
        incident=found.incident,
        decision=found.decision,
        plugin=found.plugin,
        merchant=found.merchant,
        package=found.package,
        action=ACTIONS[found.action],
        from_release=found.from_release,
        to_release=found.to_release,
        state=found.state.value,
        round=found.round,
        generation=found.generation,
        fence=found.fence,
        confidence=found.confidence,
        severity=int(found.severity),  # type: ignore[arg-type]
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
        deadline_time=timestamp(found.deadline),
        end_time=timestamp(found.end_time),
        switch_time=timestamp(found.switch_time),
        reason=found.reason,
        held_by=found.held_by,
        staging=staged(found) if found.staging else None,
        verdict=verdict(found.verdict) if found.verdict else None,
        permitted=found.permitted,
        history=[_step(time, step) for time, step in steps or []],
        trace_id=trace_id(found.trace),
        command=found.command,
    )


def _step(time: datetime, step: Step) -> patcher_pb2.AttemptStep:
    return patcher_pb2.AttemptStep(
        time=timestamp(time),
        from_state=step.from_state.value,
        to_state=step.to_state.value,
        observation=step.observation,
        reason=step.reason,
    )


def policy(found: Policy) -> patcher_pb2.Policy:
    """The policy as callers see it; its etag is its version."""
    told = patcher_pb2.Policy(
        version=found.version,
        etag=str(found.version),
        update_time=timestamp(found.update_time),
        updated_by=found.updated_by,
        reason=found.reason,
    )
    for name in EDITABLE:
        value = getattr(found, name)
        if name in DURATIONS:
            getattr(told, name).FromTimedelta(value)
        elif name in LISTS:
            getattr(told, name).extend(value)
        elif name == "freeze_windows":
            told.freeze_windows.extend(_window(each) for each in value)
        else:
            setattr(told, name, int(value) if isinstance(value, Severity) else value)
    return told


def _window(found: FreezeWindow) -> patcher_pb2.FreezeWindow:
    made = patcher_pb2.FreezeWindow(cron=found.cron, time_zone=found.time_zone, reason=found.reason)
    made.duration.FromTimedelta(found.duration)
    return made


def changed_policy(request: patcher_pb2.UpdatePolicyRequest, found: Policy) -> tuple[Policy, list[str]]:
    """The policy with the fields of the mask replaced, and which of them differ. Raises Invalid, naming the field."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    unknown = [path for path in paths if path not in EDITABLE]
    if unknown or not paths:
        wrong = f"{unknown[0]!r} is not a policy field" if unknown else "update_mask names no field"
        raise Invalid(f"{wrong}; the fields are {', '.join(EDITABLE)}", reason="POLICY_FIELD", field="update_mask")
    values = {path: _policy_value(request.policy, path) for path in paths}
    made = replace(found, **values)
    check(made)
    return made, [path for path in paths if getattr(found, path) != values[path]]


def _policy_value(told: patcher_pb2.Policy, name: str) -> Any:
    value = getattr(told, name)
    if name in DURATIONS:
        return value.ToTimedelta()
    if name in LISTS:
        return tuple(value)
    if name == "freeze_windows":
        return tuple(FreezeWindow(w.cron, w.time_zone, w.duration.ToTimedelta(), w.reason) for w in value)
    return severity(value) if name == "autopatch_max_severity" else value


def kill_switch(found: KillSwitch) -> patcher_pb2.KillSwitch:
    """A kill switch as callers see it."""
    return patcher_pb2.KillSwitch(
        scope=found.scope,
        engaged=found.engaged,
        epoch=found.epoch,
        actor=found.actor,
        reason=found.reason,
        update_time=timestamp(found.update_time),
    )


def release(found: Release) -> patcher_pb2.Release:
    """A release as callers see it."""
    return patcher_pb2.Release(
        name=names.release(found.package, found.version),
        package=found.package,
        version=found.version,
        digest=found.digest,
        size=found.size,
        envelope=found.envelope,
        publish_time=timestamp(found.publish_time),
        publisher=found.publisher,
        key_ids=found.key_ids,
    )
