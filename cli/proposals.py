"""`prunella proposals`: what programs ask people for. Whoever asked cannot agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import Json, Limit, Reason, coloured, safe, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What programs ask people for.")

ProposalName = Annotated[
    str, typer.Argument(help="Id of the proposal, or a unique part of it.", autocompletion=completion.proposal)
]
State = Annotated[str, typer.Option("--state", help="Only open, approved, rejected or expired.")]


@app.command("list")
def list_(state: State = "", limit: Limit = 50, json: Json = False) -> None:
    """Proposals, newest first."""

    async def work(plane: PlaneClient) -> None:
        entries = listings.proposals(plane, limit, state=state)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        columns = ("proposal", "asks for", "of", "state", "?by", "?asked", "?decided by", "why")
        show_table(columns, [_row(entry, now) async for entry in entries], empty="no proposal")

    run(work)


@app.command()
def approve(proposal: ProposalName, reason: Reason) -> None:
    """Agrees, and it is done. Whoever proposed it cannot."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import ApproveProposalRequest

        name = f"proposals/{await id_lookup.proposal(plane, proposal)}"
        request = ApproveProposalRequest(name=name, reason=reason, request_id=new_id())
        _print((await plane.queue.ApproveProposal(request, timeout=TIMEOUT)).proposal)

    run(work)


@app.command()
def reject(proposal: ProposalName, reason: Reason) -> None:
    """Says no; nothing is done."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import RejectProposalRequest

        name = f"proposals/{await id_lookup.proposal(plane, proposal)}"
        request = RejectProposalRequest(name=name, reason=reason, request_id=new_id())
        _print((await plane.queue.RejectProposal(request, timeout=TIMEOUT)).proposal)

    run(work)


def _print(proposal: Any) -> None:
    request = f"{safe(proposal.action)} {safe(_target(proposal))}"
    typer.echo(f"proposal {id_lookup.short(proposal.name)} is {proposal.state}: {request}")


def _target(proposal: Any) -> str:
    """Strategies have names that are worth reading whole."""
    collection, _, name = proposal.target.partition("/")
    return (
        name
        if collection == "strategies"
        else f"{id_lookup.CALLED.get(collection, (collection,))[0]} {id_lookup.short(name)}"
    )


def _row(proposal: Any, now: datetime) -> tuple[str, ...]:
    return (
        id_lookup.short(proposal.name),
        safe(proposal.action),
        safe(_target(proposal)),
        coloured(proposal.state),
        safe(proposal.author),
        formatting.ago(proposal.create_time, now),
        safe(proposal.decided_by or formatting.NO_VALUE),
        safe(proposal.decision_reason or proposal.reason),
    )
