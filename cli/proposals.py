"""`prunella proposals`: what programs ask people for. Whoever asked cannot agree."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list
from cli.options import Json, Limit, ProposalName, Reason
from cli.output import coloured, safe

app = command_group("What programs ask people for.")

COLUMNS = ("proposal", "asks for", "of", "state", "?by", "?asked", "?decided by", "why")
State = Annotated[str, typer.Option("--state", help="Only open, approved, rejected or expired.")]


@app.command("list")
def list_(state: State = "", limit: Limit = 50, json: Json = False) -> None:
    """Proposals, newest first."""
    run_list(listings.proposals, limit, COLUMNS, _row, empty="no proposal", json=json, state=state)


@app.command()
def approve(proposal: ProposalName, reason: Reason) -> None:
    """Agrees, and it is done. Whoever proposed it cannot."""
    run_change("queue.ApproveProposal", "proposals", proposal, _state, field="proposal", reason=reason)


@app.command()
def reject(proposal: ProposalName, reason: Reason) -> None:
    """Says no; nothing is done."""
    run_change("queue.RejectProposal", "proposals", proposal, _state, field="proposal", reason=reason)


def _state(proposal: Any) -> str:
    request = f"{safe(proposal.action)} {safe(_target(proposal))}"
    return f"proposal {id_lookup.short(proposal.name)} is {proposal.state}: {request}"


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
