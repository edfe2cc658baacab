"""Rollout: a release or a configuration on its way to many plugins, in waves that must prove it first.

Rule: plugins are drawn into waves once (`waves`), started at a pace that bad news slows down (`pace`), and judged by a
sequential test that may be asked after every result (`judging`). `next(rollout, observation, now)` says what follows
from whatever is seen; of the plugins the rollout keeps counts, and each has a row of its own (`members`).
"""

from services.patcher.rollout.concurrency import Pace, in_flight_limit
from services.patcher.rollout.judging import Counts, Exposure, Judgement, Rules, judge
from services.patcher.rollout.machine import begin, next  # noqa: A004 - the design's word
from services.patcher.rollout.members import TOUCHED, Member, MemberState, Tally
from services.patcher.rollout.model import (
    FINAL,
    LIVE,
    OWNERS,
    Bounds,
    CallOff,
    Change,
    Fact,
    Figures,
    Owner,
    RollBack,
    Rollout,
    StartMore,
    State,
    Step,
    Told,
    Want,
    figures,
)
from services.patcher.rollout.observations import (
    AbortRequested,
    Allowed,
    BudgetChanged,
    Compared,
    Left,
    NotSwitched,
    NotTakenBack,
    Observation,
    Outcome,
    PauseRequested,
    PromoteRequested,
    Refused,
    ResumeRequested,
    Returned,
    Scope,
    Settled,
    Started,
    Superseded,
    Switched,
    TakenBack,
    Tick,
    WentOffline,
)
from services.patcher.rollout.waves import DEFAULT_WAVES, Candidate, Place, Wave, draw, sizes

__all__ = [
    "DEFAULT_WAVES", "FINAL", "LIVE", "OWNERS", "TOUCHED", "AbortRequested", "Allowed", "Bounds", "BudgetChanged",
    "CallOff", "Candidate", "Change", "Compared", "Counts", "Exposure", "Fact", "Figures", "Judgement", "Left",
    "Member", "MemberState", "NotSwitched", "NotTakenBack", "Observation", "Outcome", "Owner", "Pace",
    "PauseRequested", "Place", "PromoteRequested", "Refused", "ResumeRequested", "Returned", "RollBack", "Rollout",
    "Rules", "Scope", "Settled", "StartMore", "Started", "State", "Step", "Superseded", "Switched", "TakenBack",
    "Tally", "Tick", "Told", "Want", "Wave", "WentOffline", "begin", "draw", "figures", "in_flight_limit", "judge",
    "next", "sizes",
]  # fmt: skip
