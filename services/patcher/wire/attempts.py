"""Attempts as callers see them."""

from collections.abc import Sequence
from datetime import datetime

from libs.common import names
from libs.common.telemetry.context import trace_id
from prunella.v1 import patcher_pb2
from services.patcher.approvals import Approval
from services.patcher.attempt import Attempt, Transition
from services.patcher.watch import Watch
from services.patcher.wire.approvals import approval as show_approval
from services.patcher.wire.events import staged, verdict
from services.patcher.wire.scalars import ACTIONS, timestamp

# Told as they are.
SAME = (
    "incident", "decision", "plugin", "merchant", "package", "from_release", "to_release", "round", "generation",
    "fence", "confidence", "reason", "held_by", "permitted", "command", "configuration", "author",
)  # fmt: skip


def attempt_of(
    found: Attempt,
    history: Sequence[tuple[datetime, Transition]] = (),
    approval: tuple[Approval, str] | None = None,
    watch: Watch | None = None,
) -> patcher_pb2.Attempt:
    """An attempt as callers see it; `approval` comes with its plan's text."""
    return patcher_pb2.Attempt(
        name=names.attempt(found.id),
        action=ACTIONS[found.action],
        state=found.state.value,
        severity=int(found.severity),  # type: ignore[arg-type]
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
        deadline_time=timestamp(found.deadline_time),
        end_time=timestamp(found.end_time),
        switch_time=timestamp(found.switch_time),
        staging=staged(found) if found.staging else None,
        verdict=verdict(found.verdict) if found.verdict else None,
        history=[_transition(*entry) for entry in history],
        trace_id=trace_id(found.traceparent),
        approval=show_approval(*approval) if approval else None,
        rollout=names.rollout(found.rollout) if found.rollout else "",
        watch=_watch(watch) if watch else None,
        **{name: getattr(found, name) for name in SAME},
    )


def _watch(watch: Watch) -> patcher_pb2.AttemptWatch:
    return patcher_pb2.AttemptWatch(
        state=watch.state.value,
        reason=watch.reason,
        until_time=timestamp(watch.until_time),
        end_time=timestamp(watch.end_time),
    )


def _transition(time: datetime, transition: Transition) -> patcher_pb2.AttemptTransition:
    return patcher_pb2.AttemptTransition(
        time=timestamp(time),
        from_state=transition.from_state.value,
        to_state=transition.to_state.value,
        observation=transition.observation,
        reason=transition.reason,
    )
