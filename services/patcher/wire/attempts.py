"""Attempts as callers see them."""

from collections.abc import Sequence
from datetime import datetime

from libs.common import names
from libs.common.telemetry.context import trace_id
from prunella.v1 import patcher_pb2
from services.patcher.approvals import Approval
from services.patcher.attempt import Attempt, Transition
from services.patcher.wire.approvals import approval as show_approval
from services.patcher.wire.events import staged, verdict
from services.patcher.wire.scalars import ACTIONS, timestamp


def attempt_of(
    found: Attempt, history: Sequence[tuple[datetime, Transition]] = (), approval: tuple[Approval, str] | None = None
) -> patcher_pb2.Attempt:
    """An attempt as callers see it; `approval` comes with its plan's text."""
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
        deadline_time=timestamp(found.deadline_time),
        end_time=timestamp(found.end_time),
        switch_time=timestamp(found.switch_time),
        reason=found.reason,
        held_by=found.held_by,
        staging=staged(found) if found.staging else None,
        verdict=verdict(found.verdict) if found.verdict else None,
        permitted=found.permitted,
        history=[_transition(*entry) for entry in history],
        trace_id=trace_id(found.traceparent),
        command=found.command,
        approval=show_approval(*approval) if approval else None,
        configuration=found.configuration,
        author=found.author,
        rollout=names.rollout(found.rollout) if found.rollout else "",
    )


def _transition(time: datetime, transition: Transition) -> patcher_pb2.AttemptTransition:
    return patcher_pb2.AttemptTransition(
        time=timestamp(time),
        from_state=transition.from_state.value,
        to_state=transition.to_state.value,
        observation=transition.observation,
        reason=transition.reason,
    )
