"""Proposals: what a program asks operators to do, and what becomes of it.

Rule: a proposal changes nothing but itself. A person other than its author agrees, and it is done in the same
transaction; or declines; or a day passes and it expires. What was decided stays decided.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common.errors import Denied, Invalid, Refused
from libs.common.names import parse

LIFE = timedelta(hours=24)
LONGEST_REASON = 1000
# action → the collection its target belongs to
ACTIONS = {
    "retry_task": "tasks",
    "cancel_task": "tasks",
    "approve_strategy": "strategies",
    "close_report": "errorReports",
}


@dataclass(frozen=True)
class Proposal:
    """Something a program asks operators for; `state` is open, approved, rejected or expired.

    `merchant` is whose task or report the target is; empty for a strategy, which belongs to nobody.
    """

    id: str
    merchant: str
    action: str
    target: str
    reason: str
    author: str
    state: str
    create_time: datetime
    expire_time: datetime
    decided_by: str = ""
    decision_reason: str = ""


def create(id_: str, action: str, target: str, reason: str, author: str, now: datetime) -> Proposal:
    """A new proposal. Raises Invalid naming the field."""
    if action not in ACTIONS:
        raise Invalid(
            f"action must be one of {', '.join(ACTIONS)}, not {action[:40]!r}", reason="BAD_ACTION", field="action"
        )
    parse(ACTIONS[action], target, field="target")
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise Invalid(
            f"reason must say why in 1 to {LONGEST_REASON} characters", reason="REASON_MISSING", field="reason"
        )
    return Proposal(id_, "", action, target, reason, author, "open", now, now + LIFE)


def check_decision(proposal: Proposal, actor: str, approved: bool, now: datetime) -> None:
    """Whether `actor` may decide on it now. Raises Refused when it is decided or expired, Denied for its author."""
    if proposal.state != "open" or proposal.expire_time <= now:
        state = proposal.state if proposal.state != "open" else "expired"
        raise Refused(
            f"the proposal is {state} and cannot be decided on any more; make a new one",
            reason="PROPOSAL_DECIDED",
            field="name",
            state=state,
        )
    if approved and actor == proposal.author:
        raise Denied("nobody approves a proposal of their own; another person must", reason="OWN_PROPOSAL", actor=actor)
