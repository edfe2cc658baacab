"""`prunella storms`: many plugins of a package ill of the same at once; automation waits for their end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import Json, Limit, Reason, Watch, coloured, plain, safe, show_json, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Many plugins ill of the same at once; automation waits.")

StormName = Annotated[
    str, typer.Argument(help="Id of the storm, or a unique part of it.", autocompletion=completion.storm)
]
Package = Annotated[str, typer.Option("--package", help="Only of this package.")]
State = Annotated[str, typer.Option("--state", help="Only ongoing or over.")]


@app.command("list")
def list_(
    package: Package = "", state: State = "", limit: Limit = 50, watch: Watch = False, json: Json = False
) -> None:
    """Storms, newest first."""

    async def work(plane: PlaneClient) -> None:
        entries = listings.storms(plane, limit, package=package, state=state)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        columns = ("storm", "package", "ill of", "state", "plugins", "?began", "?lasted", "why")
        show_table(columns, [_row(entry, now) async for entry in entries], empty="no storm")

    run(work, watch=watch)


@app.command()
def end(storm: StormName, reason: Reason, json: Json = False) -> None:
    """Says that it is over: automation goes on with what is still wrong."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.ingest_pb2 import EndStormRequest

        request = EndStormRequest(
            name=f"storms/{await id_lookup.storm(plane, storm)}", reason=reason, request_id=new_id()
        )
        answer = (await plane.ingest.EndStorm(request, timeout=TIMEOUT)).storm
        if json:
            show_json(plain(answer))
            return
        typer.echo(
            f"storm {id_lookup.short(answer.name)} ({safe(answer.package)}, {safe(answer.type)}) is {answer.state}"
        )

    run(work)


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
