"""`prunella stories`: one story per incident, what broke, what was tried and why, how it ended, how to roll it back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list, run_show
from cli.options import IncidentName, Json, Limit, PluginOf, Severity, Watch
from cli.output import coloured, console, safe, show_fields

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("One story per incident: what broke, what was tried and why, how it ended.")

COLUMNS = ("incident", "plugin", "type", "?severity", "state", "?began", "?tries", "how it ended")
Merchant = Annotated[str, typer.Option("--merchant", help="Only of this merchant.")]
State = Annotated[
    str, typer.Option("--state", help="Only open, in_progress, escalated, flapping, mitigated or closed.")
]
Since = Annotated[str, typer.Option("--since", help="Only what began in the last 24h, 7d, ….")]


@app.command("list")
def list_(
    plugin: PluginOf = "", merchant: Merchant = "", state: State = "", severity: Severity = "", since: Since = "",
    limit: Limit = 50, watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Stories, newest first."""
    run_list(
        listings.stories, limit, COLUMNS, _row, empty="no story", json=json, watch=watch, plugin=plugin,
        merchant=merchant, state=state, severity=formatting.severity_value(severity), since_time=since_time(since),
    )  # fmt: skip


@app.command()
def show(incident: IncidentName, json: Json = False) -> None:
    """One story with all its steps."""
    run_show("ops.GetStory", "incidents", incident, _show, field="story", json=json)


def since_time(since: str) -> datetime | None:
    """When `--since` begins; None for an empty one. Raises typer.BadParameter."""
    return datetime.now(UTC) - formatting.parse_duration(since, "--since") if since else None


def _row(story: Any, now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Severity

    return (
        id_lookup.short(story.name),
        safe(story.label),
        safe(story.type),
        coloured(formatting.enum_label(Severity, story.severity)),
        coloured(story.state),
        formatting.ago(story.open_time, now),
        str(len(story.attempts)),
        safe(story.outcome),
    )


async def _show(_plane: PlaneClient, story: Any) -> None:
    from prunella.v1.events_pb2 import Severity

    now = datetime.now(UTC)
    show_fields(
        [
            ("story", safe(story.summary)),
            ("incident", story.name.rpartition("/")[2]),
            ("plugin", safe(f"{story.label} ({story.plugin})") if story.plugin else ""),
            ("broke", safe(" ".join(filter(None, (story.type, "on", story.package, story.release))))),
            ("severity", coloured(formatting.enum_label(Severity, story.severity))),
            ("evidence", safe(story.evidence)),
            ("began", formatting.ago(story.open_time, now)),
            ("ended", formatting.ago(story.end_time, now).removeprefix(formatting.NO_VALUE)),
            ("state", coloured(story.state)),
            ("how it ended", safe(story.outcome)),
            ("cared for by", safe(story.assignee)),
            ("to roll it back", safe(story.rollback_command)),
            ("needs you", safe(story.attention_command)),
        ]
    )
    for one in story.attempts:
        typer.echo()
        show_fields(_attempt(one))
    typer.echo()
    start = formatting.to_datetime(story.steps[0].time) if story.steps else None
    for step in story.steps:
        when = formatting.to_datetime(step.time)
        since = max(0.0, (when - start).total_seconds()) if when and start else 0.0
        console().print(
            f"[dim]+{formatting.duration(since):>7}[/]  {safe(step.line)}", overflow="ellipsis", no_wrap=True
        )
    if story.truncated:
        typer.echo("it has more steps; see: prunella timeline --incident …", err=True)


def _attempt(one: Any) -> list[tuple[str, str]]:
    target = f"{one.from_release} → {one.to_release}" if one.to_release else ""
    sure = f"{one.confidence:.2f}" if one.HasField("confidence") else ""
    return [
        ("tried", safe(" ".join(filter(None, (f"round {one.round}:", one.action, target))))),
        ("attempt", one.attempt),
        ("why", safe(one.explanation)),
        ("confidence", sure),
        ("staging", safe(one.staging)),
        ("verdict", safe(one.verdict)),
        ("became", coloured(one.state) + (f" · {safe(one.outcome)}" if one.outcome else "")),
        ("waits for", safe(one.held_by)),
    ]
