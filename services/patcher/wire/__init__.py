"""Protobuf ⇄ dataclasses. The only room that sees both; it parses or raises Invalid."""

from services.patcher.wire.approvals import approval, vote
from services.patcher.wire.attempts import attempt_of
from services.patcher.wire.configurations import configuration
from services.patcher.wire.events import (
    approval_ended,
    approval_events,
    attempt_event,
    rollout_event,
    staged,
    verdict,
    watch_ended,
)
from services.patcher.wire.policy import (
    changed_policy,
    kill_switch,
    policy,
    policy_change,
    policy_changed,
    policy_replay,
    sandbox,
)
from services.patcher.wire.releases import release
from services.patcher.wire.requests import command_finished, permit_request, sums
from services.patcher.wire.scalars import ACTIONS, ACTIVE, HEALTH, KINDS, duration, severity, time_of, timestamp

__all__ = [
    "ACTIONS", "ACTIVE", "HEALTH", "KINDS", "approval", "approval_ended", "approval_events", "attempt_event",
    "attempt_of", "changed_policy", "command_finished", "configuration", "duration", "kill_switch",
    "permit_request", "policy", "policy_change", "policy_changed", "policy_replay", "release", "rollout_event",
    "sandbox", "severity", "staged", "sums", "time_of", "timestamp", "verdict", "vote", "watch_ended",
]  # fmt: skip
