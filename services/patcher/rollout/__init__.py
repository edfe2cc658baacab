"""Rollout: a release or a configuration on its way to many plugins, in waves that must prove it first.

Rule: plugins are drawn into waves once (`waves`), started at a pace that bad news slows down (`pace`), and judged by a
sequential test that may be asked after every result (`judging`). `next(rollout, observation, now)` says what follows
from whatever is seen; of the plugins the rollout keeps counts, and each has a row of its own (`members`).
"""

from services.patcher.rollout.concurrency import Concurrency, in_flight_limit
from services.patcher.rollout.judging import Counts, Exposure, Judgement, Rules, judge
from services.patcher.rollout.machine import create, next  # noqa: A004 - the design's word
from services.patcher.rollout.members import (
    TOUCHED,
    Member,
    MemberState,
    NotSwitched,
    Outcome,
    PluginLeft,
    Returned,
    RollbackFailed,
    RolledBack,
    Settled,
    Started,
    Switched,
    Tally,
    WentOffline,
)
from services.patcher.rollout.model import (
    FINAL,
    LIVE,
    OWNERS,
    AbortRequested,
    Approved,
    Bounds,
    BudgetChanged,
    CancelUnpermitted,
    Change,
    ControlGroupUpdated,
    Effect,
    Fact,
    Figures,
    Observation,
    Owner,
    PauseRequested,
    PromoteRequested,
    Rejected,
    ResumeRequested,
    RollBack,
    Rollout,
    RolloutEvent,
    Scope,
    StartMembers,
    State,
    Superseded,
    Tick,
    Transition,
    figures,
)
from services.patcher.rollout.waves import DEFAULT_WAVES, Assignment, Candidate, Wave, draw, sizes

__all__ = [
    "DEFAULT_WAVES", "FINAL", "LIVE", "OWNERS", "TOUCHED", "AbortRequested", "Approved", "Assignment", "Bounds",
    "BudgetChanged", "CancelUnpermitted", "Candidate", "Change", "Concurrency", "ControlGroupUpdated", "Counts",
    "Effect", "Exposure", "Fact", "Figures", "Judgement", "Member", "MemberState", "NotSwitched", "Observation",
    "Outcome", "Owner", "PauseRequested", "PluginLeft", "PromoteRequested", "Rejected", "ResumeRequested",
    "Returned", "RollBack", "RollbackFailed", "RolledBack", "Rollout", "RolloutEvent", "Rules", "Scope", "Settled",
    "StartMembers", "Started", "State", "Superseded", "Switched", "Tally", "Tick", "Transition", "Wave",
    "WentOffline", "create", "draw", "figures", "in_flight_limit", "judge", "next", "sizes",
]  # fmt: skip
