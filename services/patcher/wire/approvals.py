"""Approvals as callers see them, and votes as they write them."""

from libs.common import names
from libs.common.errors import Invalid
from prunella.v1 import patcher_pb2
from services.patcher.approvals import Approval, Quorum, Vote
from services.patcher.wire.scalars import timestamp


def approval(found: Approval, plan_text: str) -> patcher_pb2.Approval:
    """An approval as callers see it, with the plan they are asked about."""
    shown = patcher_pb2.Approval(
        plan=plan_text,
        plan_hash=found.plan_hash,
        quorum=found.quorum.size,
        roles=found.quorum.seats,
        status=found.status.value,
        expire_time=timestamp(found.expire_time),
        excluded=sorted(name for name in found.authors | {found.proposer} if name),
        reason=found.reason,
    )
    for vote in found.votes:
        role = next(iter(sorted(vote.roles)), "")
        shown.votes.add(actor=names.operator(vote.operator), role=role, approved=vote.approved, reason=vote.reason)
    return shown


def vote(
    request: patcher_pb2.ApproveAttemptRequest | patcher_pb2.RejectAttemptRequest,
    quorum: Quorum,
    operator: str,
    *,
    approved: bool,
) -> Vote:
    """An operator's vote. Raises Invalid when the plan is not named, or the role is none that is asked for."""
    if not request.plan_hash:
        raise Invalid(
            "plan_hash must say which plan you have read; GetAttempt shows it", reason="PLAN_MISSING", field="plan_hash"
        )
    roles = tuple(dict.fromkeys(quorum.seats))
    if (request.role and request.role not in roles) or (not request.role and len(roles) > 1):
        wrong = f"{request.role[:40]!r} is not a role that is asked for" if request.role else "role must be named"
        raise Invalid(
            f"{wrong}; use {' or '.join(roles)}", reason="APPROVAL_ROLE", field="role", roles=", ".join(roles)
        )
    return Vote(
        operator, frozenset({request.role or roles[0]}), approved, request.plan_hash, request.request_id, request.reason
    )
