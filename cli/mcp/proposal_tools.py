"""The one tool that is heard: it asks a person to do something, and changes nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cli import id_lookup
from cli.mcp.access import PlaneConnection, tool
from cli.mcp.queue_results import Proposal
from cli.mcp.queue_tools import proposal
from cli.plane_client import PlaneClient

Action = Literal["retry_task", "cancel_task", "approve_strategy", "close_report"]


class ProposalTools:
    """Asks queue to ask people."""

    def __init__(self, connection: PlaneConnection) -> None:
        self.connection = connection

    @tool
    async def propose(
        self,
        action: Annotated[Action, Field(description="What a person is asked to do.")],
        target: Annotated[str, Field(description="Id of the task or error report, or name of the strategy.")],
        reason: Annotated[str, Field(min_length=1, max_length=500, description="Why; a person reads it.")],
    ) -> Proposal:
        """Asks a person to retry or cancel a task, to approve a strategy's write tools, or to close an error report.

        Nothing is done until a person agrees (prunella proposals approve); you cannot agree yourself.
        """
        plane = self.connection.plane()
        name = await _target(plane, action, target)
        answer = await plane.call("queue.CreateProposal", action=action, target=name, reason=reason)
        return proposal(answer.proposal)


async def _target(plane: PlaneClient, action: Action, typed: str) -> str:
    if action == "approve_strategy":
        return await id_lookup.resource(plane, "strategies", typed)
    if action == "close_report":
        return await id_lookup.resource(plane, "errorReports", typed)
    return await id_lookup.resource(plane, "tasks", typed)
