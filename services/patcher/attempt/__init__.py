"""Attempt: one try to carry out a decision on one plugin, from the first gate to the agent's last word.

Rule: until a permit is given nothing was applied, so an attempt may be refused, fail or be cancelled. From the permit
on it is *possibly applied* and ends only by the agent's own word: COMMITTED makes success, REVERTED makes
rolled_back, and no word in time makes unconfirmed, which asks for a person and keeps the plugin locked until the
agent is heard again. `next(attempt, observation, now)` says for every state and every observation, also late and
repeated ones, what follows.
"""

from services.patcher.attempt.machine import begin, next, stillborn  # noqa: A004 - the design's word
from services.patcher.attempt.model import (
    FINAL,
    HELD_LIMIT,
    IN_FLIGHT,
    LIVE,
    OWNERS,
    PERMIT_AGE,
    UNPERMITTED,
    Attempt,
    Bounds,
    Change,
    Errand,
    ErrandKind,
    Fact,
    Owner,
    Purpose,
    State,
    Step,
    Told,
)
from services.patcher.attempt.observations import (
    CancelRequested,
    CommandFinished,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    Gated,
    Gone,
    Granted,
    Judged,
    Observation,
    Outcome,
    Permitted,
    Rejected,
    RollbackRequested,
    Seen,
    Staged,
    StagingFinished,
    StagingLost,
    Stopped,
)

__all__ = [
    "FINAL", "HELD_LIMIT", "IN_FLIGHT", "LIVE", "OWNERS", "PERMIT_AGE", "UNPERMITTED",
    "Attempt", "Bounds", "CancelRequested", "Change", "CommandFinished",
    "CommandIssued", "CommandLost", "DeadlinePassed", "Errand", "ErrandKind", "Fact", "Gated", "Gone", "Granted",
    "Judged", "Observation",
    "Outcome", "Owner", "Permitted", "Purpose", "Rejected", "RollbackRequested", "Seen", "Staged", "StagingFinished",
    "StagingLost", "State", "Step", "Stopped", "Told", "begin", "next", "stillborn",
]  # fmt: skip
