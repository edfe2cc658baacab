"""`prunella errors merge`, `split` and `similar`: which kinds of errors are one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup
from cli.command_shapes import show_answer
from cli.options import Json, PluginOn, Reason, ReportName
from cli.output import plain, safe, show_json, show_table
from cli.plane_client import FAILED, fail, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

MOST = 100
Reports = Annotated[
    list[str],
    typer.Argument(
        help="Ids of the error reports, or unique parts of them; the last one stays.", autocompletion=completion.report
    ),
]


def merge(reports: Reports, reason: Reason, json: Json = False) -> None:
    """Makes error reports of one plugin one: merge FROM… INTO. What comes later is counted in the last one too."""
    if len(reports) < 2:
        raise typer.BadParameter("name those to merge, and at the end the one that stays", param_hint="REPORTS")

    async def work(plane: PlaneClient) -> None:
        *names, into = [await id_lookup.resource(plane, "errorReports", typed) for typed in reports]
        answer = await plane.call("queue.MergeErrorReports", names=names, into=into, reason=reason)
        show_answer(answer, _merged, json=json)
        if answer.refusals:
            sentences = (f"{id_lookup.short(one.name)}: {one.message}" for one in answer.refusals)
            fail("not merged: " + "; ".join(sentences), FAILED)

    run(work)


def split(report: ReportName, reason: Reason, json: Json = False) -> None:
    """Takes a merge back: of a merged error report, or of all that were merged into this one."""

    async def work(plane: PlaneClient) -> None:
        name = await id_lookup.resource(plane, "errorReports", report)
        show_answer(await plane.call("queue.SplitErrorReport", name=name, reason=reason), _split, json=json)

    run(work)


def similar(plugin: PluginOn = "", json: Json = False) -> None:
    """Error reports whose messages say nearly the same, with the line that merges them."""

    async def work(plane: PlaneClient) -> None:
        wanted = await id_lookup.filters(plane, plugin=plugin)
        answer = await plane.call("queue.ListMergeSuggestions", page_size=MOST, **wanted)
        if json:
            show_json([plain(one) for one in answer.suggestions])
            return
        labels = await id_lookup.labels(plane, (one.plugin for one in answer.suggestions))
        columns = ("plugin", "errors", "alike", "message", "to merge them")
        show_table(columns, (_row(one, labels) for one in answer.suggestions), empty="no two errors say the same")

    run(work)


def _merged(answer: Any) -> str:
    count = formatting.plural(len(answer.merged), "error")
    return (
        f"{count} merged into {id_lookup.short(answer.report.name)}, which occurred {answer.report.occurrences} times"
    )


def _split(answer: Any) -> str:
    names = ", ".join(id_lookup.short(one.name) for one in answer.reports)
    return f"on their own again: {names}; split from {id_lookup.short(answer.merged_into)}"


def _row(one: Any, labels: dict[str, str]) -> tuple[str, ...]:
    names = " ".join(id_lookup.short(other.name) for other in one.reports)
    return (
        safe(labels.get(one.plugin, formatting.NO_VALUE)),
        str(len(one.reports) + 1),
        f"{one.similarity:.2f}",
        safe(one.message[:80]),
        f"prunella errors merge {names} {id_lookup.short(one.into)} -m …",
    )
