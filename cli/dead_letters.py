"""`prunella dead-letters`: facts that a service could not handle, with the reason, and the way back.

Rule: nothing is lost by being here, and handing out again is safe: a fact has its effect once. What is redriven is
handled within seconds, or is here again with its reason.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import complete, ids, words
from cli.asking import Yes, agreed
from cli.groups import group
from cli.output import Json, Limit, plain, safe, show_json, show_json_list, show_table
from cli.plane import TIMEOUT, WRONG, fail, run

if TYPE_CHECKING:
    from cli.plane import Plane

app = group("Facts that a service could not handle, and the way back.")

Consumer = Annotated[str, typer.Option("--consumer", "-c", help="Only of this service: decider, patcher, …")]
Event = Annotated[
    str, typer.Argument(help="Id of the fact, or a unique part of it.", autocompletion=complete.dead_letter)
]
All = Annotated[bool, typer.Option("--all", help="Every one that is listed.")]


@app.command("list")
def list_(consumer: Consumer = "", limit: Limit = 50, json: Json = False) -> None:
    """Facts that were given up and not handed out again since, newest first."""

    async def work(plane: Plane) -> None:
        letters = _letters(plane, consumer, limit)
        if json:
            await show_json_list(letters)
            return
        now = datetime.now(UTC)
        columns = ("event", "fact", "for", "?errors", "?crashes", "when", "why")
        show_table(columns, [_row(letter, now) async for letter in letters], empty="no dead letter")

    run(work)


@app.command()
def redrive(
    event: Event = "", consumer: Consumer = "", all_: All = False, yes: Yes = False, json: Json = False
) -> None:
    """Hands facts out again, once the reason is gone: one by its id, or all of them."""
    if bool(event) == all_:
        fail("name one dead letter, or say --all; see: prunella dead-letters", WRONG)

    async def work(plane: Plane) -> None:
        from libs.common.names import new_id
        from prunella.v1.ops_pb2 import RedriveDeadLetterRequest

        listed = [letter async for letter in _letters(plane, consumer, 0)]
        wanted = listed if all_ else _named(event, listed)
        if all_ and wanted:
            agreed(f"hand out {words.count(len(wanted), 'fact')} again?", yes=yes)
        for letter in wanted:
            request = RedriveDeadLetterRequest(consumer=letter.consumer, event_id=letter.event_id, request_id=new_id())
            await plane.ops.RedriveDeadLetter(request, timeout=TIMEOUT)
        if json:
            show_json([plain(letter) for letter in wanted])
            return
        for letter in wanted:
            typer.echo(f"{ids.short(letter.event_id)}: {letter.consumer} gets {letter.fact} again")
        if not wanted:
            typer.echo("no dead letter", err=True)

    run(work)


def _named(typed: str, listed: list[Any]) -> list[Any]:
    """What one fact is for several services is one for each; they all get it again. Raises NotFound or Invalid."""
    event = ids.pick("deadLetters", ids.bare("events", typed), (letter.event_id for letter in listed))
    return [letter for letter in listed if letter.event_id == event]


def _letters(plane: Plane, consumer: str, limit: int) -> Any:
    from prunella.v1.ops_pb2 import ListDeadLettersRequest

    return ids.pages(plane.ops.ListDeadLetters, ListDeadLettersRequest(consumer=consumer), "dead_letters", limit)


def _row(letter: Any, now: datetime) -> tuple[str, ...]:
    return (
        ids.short(letter.event_id),
        safe(letter.fact),
        safe(letter.consumer),
        str(letter.errors),
        str(letter.crashes),
        words.ago(letter.time, now),
        safe(letter.reason),
    )
