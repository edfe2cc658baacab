"""`prunella trace`: a healing from the first bad heartbeat to its end, or that of an error report, as a waterfall."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings, waterfall
from cli.options import Json
from cli.output import console, plain, safe, show_json
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

COLOURS = {
    "ingest": "cyan", "decider": "magenta", "patcher": "yellow", "agent": "green", "ops": "blue", "queue": "white",
    "worker": "green",
}  # fmt: skip
TRACE = re.compile(r"[0-9a-f]{32}")
NARROWEST_BAR, WIDEST_NAME = 16, 44


def trace(
    name: Annotated[
        str,
        typer.Argument(
            help="Incident, plugin (its newest incident), error report or trace id; the newest incident.",
            autocompletion=completion.incident,
        ),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what ops notes down.")] = False,
    json: Json = False,
) -> None:
    """One healing, step by step: who did what when, and what it waited for."""

    async def work(plane: PlaneClient) -> int:
        wanted, about = await _wanted(plane, name)
        answer = await plane.call("ops.GetTrace", name=wanted)
        if json:
            show_json(plain(answer))
            return 0
        if about is not None:
            await _head(plane, about)
        _show(answer, everything=everything)
        return 0

    run(work)


async def _wanted(plane: PlaneClient, typed: str) -> tuple[str, Any]:
    """The name to ask for, and the incident or error report it belongs to. Raises NotFound or Invalid."""
    from libs.common.errors import NotFound

    if TRACE.fullmatch(typed.lower()):
        return typed.lower(), None
    if not typed:
        newest = [entry async for entry in listings.incidents(plane, 1)]
        if not newest:
            raise NotFound("no incident yet, so there is no trace", reason="NO_INCIDENT")
        return newest[0].name, newest[0]
    try:
        name = await id_lookup.resource(plane, "incidents", typed)
        return name, (await plane.call("ingest.GetIncident", name=name)).incident
    except NotFound:
        pass
    try:
        incident = await _of_plugin(plane, typed)
        return incident.name, incident
    except NotFound:
        report = await _report(plane, typed)
        if report is None:
            raise
        return report.trace_id, report


async def _report(plane: PlaneClient, typed: str) -> Any | None:
    """The error report, or None when it is none or the queue is away."""
    from libs.common.errors import NotFound, Unavailable

    try:
        name = await id_lookup.resource(plane, "errorReports", typed)
        return (await plane.call("queue.GetErrorReport", name=name)).report
    except (NotFound, Unavailable):
        return None


async def _of_plugin(plane: PlaneClient, typed: str) -> Any:
    from libs.common.errors import NotFound

    try:
        plugin = await id_lookup.plugin(plane, typed)
    except NotFound:
        raise NotFound(
            f"{typed!r} is no incident, plugin, error or trace; see: prunella incidents, prunella errors",
            reason="UNKNOWN",
        ) from None
    newest = [entry async for entry in listings.incidents(plane, 1, plugin=plugin)]
    if not newest:
        raise NotFound(f"{typed} never had an incident", reason="NO_INCIDENT")
    return newest[0]


async def _head(plane: PlaneClient, about: Any) -> None:
    label = (await id_lookup.labels(plane, [about.plugin])).get(about.plugin, "the plane")
    line = _of_report(about) if about.name.startswith("errorReports/") else _of_incident(about)
    console().print(f"[bold]{safe(f'{label}: {line}')}[/]\n")


def _of_report(report: Any) -> str:
    from prunella.v1.queue_pb2 import ReportState

    return (
        f"{report.triage.type or report.type} · {report.message} · {formatting.enum_label(ReportState, report.state)}"
    )


def _of_incident(incident: Any) -> str:
    began = incident.first_bad_beat_time if incident.HasField("first_bad_beat_time") else incident.open_time
    took = f" after {formatting.elapsed(began, incident.end_time)}" if incident.HasField("end_time") else ""
    return f"{incident.type} · {incident.evidence.summary} · {incident.state}{took}"


def _show(answer: Any, *, everything: bool) -> None:
    spans = _waterfall_spans(answer.spans)
    shown = spans if everything else [span for span in spans if span.service != "ops"]
    screen = console()
    if shown:
        _print_rows(screen, waterfall.rows(shown), shown)
    hidden = len(spans) - len(shown)
    if hidden:
        screen.print(f"[dim]{hidden} steps of ops not shown (--all)[/]")
    if answer.complete:
        screen.print(f"[green]complete[/]: {_services(answer.spans)} took part, every parent is here")
    for sentence in answer.missing:
        screen.print(f"[yellow]incomplete[/]: {safe(sentence)}")
    screen.print(f"[dim]trace {answer.trace_id}[/]")


def _waterfall_spans(spans: Any) -> list[waterfall.Span]:
    starts = [formatting.to_datetime(span.start_time) for span in spans]
    first = min((start for start in starts if start), default=None)
    made = []
    for span, start in zip(spans, starts, strict=True):
        end = formatting.to_datetime(span.end_time)
        if start and end and first:
            begun = (start - first).total_seconds()
            until = (end - first).total_seconds()
            made.append(
                waterfall.Span(
                    span.span_id, span.parent_span_id, span.service, _short(span.name), begun, until, span.error
                )
            )
    return made


def _services(spans: Any) -> str:
    """Who took part, in the order of their first steps."""
    return ", ".join(dict.fromkeys(safe(span.service) for span in spans if span.service != "ops"))


def _short(name: str) -> str:
    """A call by its method alone; everybody knows the package."""
    return name.rpartition(".")[2] if name.startswith("prunella.v1.") else name


def _print_rows(screen: Any, rows: list[waterfall.Row], spans: list[waterfall.Span]) -> None:
    labels = [_label(row) for row in rows]
    widest = min(WIDEST_NAME, max(map(len, labels)), max(12, screen.width - 33 - NARROWEST_BAR))
    axis = waterfall.axis(spans, max(NARROWEST_BAR, screen.width - widest - 31))
    for row, label in zip(rows, labels, strict=True):
        colour = COLOURS.get(row.spans[0].service, "white")
        name = label if len(label) <= widest else label[: widest - 1] + "…"
        sign = "[bold red]✗[/]" if row.error else " "
        times = f"[dim]+{row.start:8.3f} s[/] {formatting.duration(row.busy):>7}"
        service = f"{row.spans[0].service:<8}"[:8]
        bar = axis.bar(row.spans)
        painted = f"[{'red' if row.error else colour}]{bar}[/]"
        screen.print(f"{times} {sign}[{colour}]{service}[/]{safe(name):<{widest}} {painted}", no_wrap=True)
        if row.error:
            screen.print(f"{'':>21}[red]{safe(row.error)}[/]", no_wrap=True, overflow="ellipsis")
    total = max(span.end for span in spans)
    narrowed = axis.narrowed
    note = f" ({formatting.duration(narrowed)} of waiting narrowed to {waterfall.GAP})" if narrowed else ""
    screen.print(f"\n{formatting.duration(total)} in all{note}")


def _label(row: waterfall.Row) -> str:
    many = f" ×{len(row.spans)}" if len(row.spans) > 1 else ""
    return "  " * min(row.depth, 8) + row.spans[0].name + many
