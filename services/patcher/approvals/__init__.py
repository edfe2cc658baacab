"""Approvals: so many different people, in the right roles, for exactly this plan."""

from services.patcher.approvals.machine import ask, next, satisfied  # noqa: A004 - the word of the design
from services.patcher.approvals.model import (
    LIVE,
    OWNERS,
    Approval,
    Change,
    Fact,
    Observation,
    Owner,
    PlanChanged,
    Standing,
    Tick,
    Times,
    Told,
)
from services.patcher.approvals.plan import Plan, plan_hash, plan_text, read_plan
from services.patcher.approvals.quorum import MOST, ROLES, Need, Vote, asked_for, check, enough, identity

__all__ = [
    "LIVE", "MOST", "OWNERS", "ROLES", "Approval", "Change", "Fact", "Need", "Observation", "Owner", "Plan",
    "PlanChanged", "Standing", "Tick", "Times", "Told", "Vote", "ask", "asked_for", "check", "enough", "identity",
    "next", "plan_hash", "plan_text", "read_plan", "satisfied",
]  # fmt: skip
