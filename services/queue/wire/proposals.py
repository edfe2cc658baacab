"""Proposals as callers see them."""

from __future__ import annotations

from prunella.v1 import queue_pb2 as pb
from services.queue.proposals import Proposal


def resource(proposal: Proposal) -> pb.Proposal:
    """A proposal."""
    proto = pb.Proposal(
        name=f"proposals/{proposal.id}",
        action=proposal.action,
        target=proposal.target,
        reason=proposal.reason,
        author=proposal.author,
        state=proposal.state,
        decided_by=proposal.decided_by,
        decision_reason=proposal.decision_reason,
    )
    proto.create_time.FromDatetime(proposal.create_time)
    proto.expire_time.FromDatetime(proposal.expire_time)
    return proto
