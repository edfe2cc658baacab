"""`prunella dead-letters`: facts that a service could not handle, with the reason, and the way back.

Rule: nothing is lost by being here, and handing out again is safe: a fact has its effect once. What is redriven is
handled within seconds, or is here again with its reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list
from cli.confirmation import confirm
from cli.options import Json, Limit, Yes
from cli.output import plain, safe, show_json
from cli.plane_client import USAGE_ERROR, fail, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Facts that a service could not handle, and the way back.")

COLUMNS = ("event", "fact", "for", "?errors", "?crashes", "when", "why")
Consumer = Annotated[str, typer.Option("--consumer", "-c", help="Only of this service: decider, patcher, …")]
Event = Annotated[
    str, typer.Argument(help="Id of the fact, or a unique part of it.", autocompletion=completion.dead_letter)
]
All = Annotated[bool, typer.Option("--all", help="Every one that is listed.")]


@app.command("list")
def list_(consumer: Consumer = "", limit: Limit = 50, json: Json = False) -> None:
    """Facts that were given up and not handed out again since, newest first."""
    run_list(listings.dead_letters, limit, COLUMNS, _row, empty="no dead letter", json=json, consumer=consumer)


@app.command()
def redrive(
    event: Event = "", consumer: Consumer = "", all_: All = False, yes: Yes = False, json: Json = False
) -> None:
    """Hands facts out again, once the reason is gone: one by its id, or all of them."""
    if bool(event) == all_:
        fail("name one dead letter, or say --all; see: prunella dead-letters", USAGE_ERROR)

    async def work(plane: PlaneClient) -> None:
        listed = [entry async for entry in listings.dead_letters(plane, 0, consumer=consumer)]
        wanted = listed if all_ else _named(event, listed)
        if all_ and wanted:
            confirm(f"hand out {formatting.plural(len(wanted), 'fact')} again?", yes=yes)
        for entry in wanted:
            await plane.call("ops.RedriveDeadLetter", consumer=entry.consumer, event_id=entry.event_id)
        if json:
            show_json([plain(entry) for entry in wanted])
            return
        for entry in wanted:
            typer.echo(f"{id_lookup.short(entry.event_id)}: {entry.consumer} gets {entry.fact} again")
        if not wanted:
            typer.echo("no dead letter", err=True)

    run(work)


def _named(typed: str, listed: list[Any]) -> list[Any]:
    """What one fact is for several services is one for each; they all get it again. Raises NotFound or Invalid."""
    event = id_lookup.match("deadLetters", id_lookup.typed_id("events", typed), (entry.event_id for entry in listed))
    return [entry for entry in listed if entry.event_id == event]


def _row(entry: Any, now: datetime) -> tuple[str, ...]:
    return (
        id_lookup.short(entry.event_id),
        safe(entry.fact),
        safe(entry.consumer),
        str(entry.errors),
        str(entry.crashes),
        formatting.ago(entry.time, now),
        safe(entry.reason),
    )
