"""`prunella report`: a window in one HTML file that needs nothing else: figures, charts, stories, what needs attention.

Rule: the file loads nothing from anywhere; what others wrote is escaped; what was not measured says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, kpi_format, kpis, listings, svg_charts
from cli.plane_client import run
from cli.stories import since_time
from cli.svg_charts import Series

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

STORIES = 100
OPENED, HEALED, CLOSED, GOOD, BACK, FAILED = "#c1121f", "#2d6a4f", "#6c757d", "#2d6a4f", "#9d4edd", "#c1121f"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
td.reached{color:#2d6a4f}td.missed{color:#c1121f}svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.legend span{margin-right:1.2rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
.nothing{color:#777;font-style:italic}code{background:#f3f3f3;padding:.1rem .3rem;font-size:.9em}
"""

Out = Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")]


def report(
    since: kpis.Since = "7d", until: kpis.Until = "", merchant: kpis.Merchant = "", out: Out = Path("report.html")
) -> None:
    """Writes a window as one HTML file with charts, that loads nothing from anywhere."""

    async def work(plane: PlaneClient) -> None:
        answer = await kpis.ask(plane, since, until, merchant)
        window_stories = [
            one async for one in listings.stories(plane, STORIES, since_time=since_time(since), merchant=merchant)
        ]
        overview = await plane.call("ops.GetOverview", merchant=merchant)
        out.write_text(page(answer, window_stories, overview, datetime.now(UTC)), encoding="utf-8")
        typer.echo(f"written to {out}")

    run(work)


def page(answer: Any, stories: Sequence[Any], overview: Any, now: datetime) -> str:
    """The whole file."""
    window = f"{_day(answer.start_time)} to {_day(answer.end_time)}"
    whose = f" · {escape(answer.merchant)}" if answer.merchant else ""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>Prunella: {escape(window)}</title><style>{STYLE}</style></head><body>",
        f"<h1>Prunella</h1><p>{escape(window)}{whose} · written {now:%Y-%m-%d %H:%M} UTC</p>",
        "<h2>Figures</h2>",
        _table(("figure", "value", "target"), ((name, value, goal) for name, value, goal in kpi_format.rows(answer))),
        *_charts(answer),
        "<h2>Needs attention</h2>",
        _table(("severity", "what", "type"), (_attention(item) for item in overview.attention)),
        "<h2>Stories</h2>",
        _table(("began", "plugin", "what", "how it ended"), (_story(one) for one in stories)),
        "</body></html>",
    ]
    return "\n".join(parts)


def _charts(answer: Any) -> list[str]:
    times = _times(answer)
    labels = [f"{time.astimezone():%m-%d %H:%M}" for time in times]
    points = {formatting.to_datetime(point.time): point for point in answer.points}

    def values(field: str) -> list[float | None]:
        found: list[float | None] = []
        for time in times:
            point = points.get(time)
            absent = point is None or (field == "mean_repair_seconds" and not point.HasField(field))
            found.append(None if absent else float(getattr(point, field)))
        return found

    incidents = svg_charts.bars(labels, [Series("opened", OPENED, values("opened"))])
    ended = svg_charts.bars(
        labels, [Series("healed", HEALED, values("mitigated")), Series("closed", CLOSED, values("closed"))]
    )
    attempts = svg_charts.bars(
        labels,
        [
            Series("healed", GOOD, values("succeeded")),
            Series("taken back", BACK, values("rolled_back")),
            Series("failed", FAILED, values("failed")),
        ],
    )
    goal = answer.time_to_repair.target_seconds if answer.time_to_repair.HasField("target_seconds") else None
    repair = svg_charts.line(labels, Series("mean", HEALED, values("mean_repair_seconds")), unit=" s", target=goal)
    sure = [(one.predicted, one.observed, one.tried) for one in answer.calibration if one.HasField("observed")]
    return [
        f"<h2>Incidents opened</h2>{incidents}",
        f"<h2>Incidents ended</h2>{ended}",
        f"<h2>Attempts ended</h2>{attempts}",
        f"<h2>Time to repair</h2>{repair}",
        f"<h2>Confidence: predicted against observed</h2>{svg_charts.calibration(sure)}",
    ]


def _times(answer: Any) -> list[datetime]:
    """Every point of the window, also those in which nothing happened."""
    start, end = formatting.to_datetime(answer.start_time), formatting.to_datetime(answer.end_time)
    step = timedelta(seconds=answer.point_seconds)
    if not (start and end and step):
        return []
    count = -(-(end - start) // step)
    return [start + place * step for place in range(count)]


def _attention(item: Any) -> tuple[str, str, str]:
    from prunella.v1.events_pb2 import Severity

    return formatting.enum_label(Severity, item.severity), item.line, item.command


def _story(one: Any) -> tuple[str, str, str, str]:
    return _day(one.open_time), one.label, " ".join(filter(None, (one.type, one.evidence))), one.outcome


def _day(stamp: Any) -> str:
    when = formatting.to_datetime(stamp)
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else formatting.NO_VALUE


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    if not listed:
        return '<p class="nothing">nothing</p>'
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in listed)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    kind = next((word for word in ("reached", "missed") if text.endswith(word)), "")
    cell = f"<code>{escape(text)}</code>" if text.startswith("prunella ") else escape(text)
    return f'<td class="{kind}">{cell}</td>' if kind else f"<td>{cell}</td>"
