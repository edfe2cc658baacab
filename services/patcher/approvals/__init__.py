"""Approvals: so many different people, in the right roles, for exactly this plan."""

from services.patcher.approvals.machine import create, next, satisfied  # noqa: A004 - the word of the design
from services.patcher.approvals.model import (
    LIVE,
    OWNERS,
    Approval,
    ApprovalEvent,
    Change,
    Fact,
    Observation,
    Owner,
    PlanChanged,
    Status,
    Subject,
    Tick,
    Times,
)
from services.patcher.approvals.plan import Plan, plan_hash, plan_text, read_plan
from services.patcher.approvals.quorum import MAX_QUORUM, ROLES, Quorum, Vote, check, describe, identity, is_met

__all__ = [
    "LIVE", "MAX_QUORUM", "OWNERS", "ROLES", "Approval", "ApprovalEvent", "Change", "Fact", "Observation", "Owner",
    "Plan", "PlanChanged", "Quorum", "Status", "Subject", "Tick", "Times", "Vote", "check", "create", "describe",
    "identity", "is_met", "next", "plan_hash", "plan_text", "read_plan", "satisfied",
]  # fmt: skip
