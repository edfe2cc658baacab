"""Proposals as callers see them."""

from __future__ import annotations

from prunella.v1 import queue_pb2 as pb
from services.queue.proposals import Proposal


def resource(proposal: Proposal) -> pb.Proposal:
    """A proposal."""
    told = pb.Proposal(
        name=f"proposals/{proposal.id}",
        action=proposal.action,
        target=proposal.target,
        reason=proposal.reason,
        author=proposal.author,
        state=proposal.state,
        decided_by=proposal.decided_by,
        decision_reason=proposal.decision_reason,
    )
    told.create_time.FromDatetime(proposal.created)
    told.expire_time.FromDatetime(proposal.expires)
    return told
