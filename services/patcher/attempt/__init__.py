"""Attempt: one try to carry out a decision on one plugin, from the first gate to the agent's final receipt.

Rule: until a permit is given nothing was applied, so an attempt may be refused, fail or be cancelled. From the permit
on it is *possibly applied* and ends only by the agent's own receipt: COMMITTED makes success, REVERTED makes
rolled_back, and no receipt in time makes unconfirmed, which asks for an operator and keeps the plugin locked until the
agent is heard again. `next(attempt, observation, now)` says for every state and every observation, also late and
repeated ones, what follows.
"""

from services.patcher.attempt.machine import Observation, create, end_at_creation, next  # noqa: A004 - the heart's word
from services.patcher.attempt.model import (
    FINAL,
    HELD_LIMIT,
    IN_FLIGHT,
    LIVE,
    OWNERS,
    PERMIT_AGE,
    QUEUE_LIMIT,
    UNPERMITTED,
    Attempt,
    AttemptEvent,
    AutomationStopped,
    Bounds,
    CancelRequested,
    Change,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    Errand,
    ErrandKind,
    Fact,
    GatesEvaluated,
    IllnessOver,
    Owner,
    Permitted,
    PlanApproved,
    PlanRejected,
    Purpose,
    RollbackRequested,
    Staged,
    StagingFinished,
    StagingLost,
    State,
    Transition,
    VerdictReached,
)
from services.patcher.attempt.transitions import BeatSeen, CommandFinished, Outcome, PluginLeft

__all__ = [
    "FINAL", "HELD_LIMIT", "IN_FLIGHT", "LIVE", "OWNERS", "PERMIT_AGE", "QUEUE_LIMIT", "UNPERMITTED", "Attempt",
    "AttemptEvent",
    "AutomationStopped", "BeatSeen", "Bounds", "CancelRequested", "Change", "CommandFinished", "CommandIssued",
    "CommandLost", "DeadlinePassed", "Errand", "ErrandKind", "Fact", "GatesEvaluated", "IllnessOver", "Observation",
    "Outcome", "Owner", "Permitted", "PlanApproved", "PlanRejected", "PluginLeft", "Purpose", "RollbackRequested",
    "Staged", "StagingFinished", "StagingLost", "State", "Transition", "VerdictReached", "create",
    "end_at_creation", "next",
]  # fmt: skip
