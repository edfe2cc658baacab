"""`prunella kpis`: the figures of a window, each beside its target."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, kpi_format
from cli.options import Json
from cli.output import coloured, plain, safe, show_json, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

Since = Annotated[str, typer.Option("--since", help="How far back, such as 24h or 7d.")]
Until = Annotated[str, typer.Option("--until", help="How long ago it ends, such as 1d; now when left out.")]
Merchant = Annotated[str, typer.Option("--merchant", help="Only what concerns this merchant.")]
COLOURS = {"reached": "green", "missed": "red"}


def kpis(since: Since = "7d", until: Until = "", merchant: Merchant = "", json: Json = False) -> None:
    """Success and rollback rate, times to detect and to repair, and what people had to do."""

    async def work(plane: PlaneClient) -> None:
        answer = await ask(plane, since, until, merchant)
        if json:
            show_json(plain(answer))
            return
        typer.echo(f"{_day(answer.start_time)} to {_day(answer.end_time)}" + (f", {merchant}" if merchant else ""))
        rows = [(name, safe(value), _target(text)) for name, value, text in kpi_format.rows(answer)]
        show_table(("figure", "value", "target"), rows, empty="no data")
        tried = [one for one in answer.calibration if one.decisions]
        show_table(
            ("confidence", "decisions", "predicted", "tried", "observed"),
            [_bin(one) for one in tried],
            empty="no decision in this window",
        )

    run(work)


async def ask(plane: PlaneClient, since: str, until: str, merchant: str) -> Any:
    """The figures of a window that is given by how far back it reaches."""
    now = datetime.now(UTC)
    start_time = now - formatting.parse_duration(since, "--since")
    end_time = now - formatting.parse_duration(until, "--until") if until else None
    fields = {"merchant": merchant, "start_time": start_time, "end_time": end_time}
    return await plane.call("ops.GetKpis", timeout=TIMEOUT * 4, **fields)


def _day(stamp: Any) -> str:
    when = formatting.to_datetime(stamp)
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else formatting.NO_VALUE


def _target(text: str) -> str:
    for word, colour in COLOURS.items():
        if text.endswith(word):
            return f"{safe(text.removesuffix(word))}[{colour}]{word}[/]"
    return safe(text)


def _bin(one: Any) -> tuple[str, ...]:
    return (
        f"{one.lower:.1f} – {one.upper:.1f}",
        str(one.decisions),
        kpi_format.optional_number(one, "predicted"),
        str(one.tried),
        coloured(kpi_format.optional_number(one, "observed")),
    )
