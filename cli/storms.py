"""`prunella storms`: many plugins of a package ill of the same at once; automation waits for their end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list
from cli.options import Json, Limit, Package, Reason, StormName, Watch
from cli.output import coloured, safe

app = command_group("Many plugins ill of the same at once; automation waits.")

COLUMNS = ("storm", "package", "ill of", "state", "plugins", "?began", "?lasted", "why")
State = Annotated[str, typer.Option("--state", help="Only ongoing or over.")]


@app.command("list")
def list_(
    package: Package = "", state: State = "", limit: Limit = 50, watch: Watch = False, json: Json = False
) -> None:
    """Storms, newest first."""
    run_list(
        listings.storms, limit, COLUMNS, _row, empty="no storm", json=json, watch=watch, package=package, state=state
    )


@app.command()
def end(storm: StormName, reason: Reason, json: Json = False) -> None:
    """Says that it is over: automation goes on with what is still wrong."""
    run_change("ingest.EndStorm", "storms", storm, _state, field="storm", json=json, reason=reason)


def _state(storm: Any) -> str:
    return f"storm {id_lookup.short(storm.name)} ({safe(storm.package)}, {safe(storm.type)}) is {storm.state}"


def _row(storm: Any, now: datetime) -> tuple[str, ...]:
    return (
        id_lookup.short(storm.name),
        safe(storm.package),
        safe(storm.type),
        coloured(storm.state),
        f"{storm.plugins} of {storm.fleet}",
        formatting.ago(storm.start_time, now),
        formatting.elapsed(storm.start_time, storm.end_time),
        safe(storm.reason),
    )
