"""`prunella stories`: one story per incident, what broke, what was tried and why, how it ended, how to roll it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import (
    Json,
    Limit,
    Watch,
    coloured,
    console,
    plain,
    safe,
    show_fields,
    show_json,
    show_json_list,
    show_table,
)
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("One story per incident: what broke, what was tried and why, how it ended.")

Name = Annotated[
    str, typer.Argument(help="Id of the incident, or a unique part of it.", autocompletion=completion.incident)
]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only of this plugin: label or id.", autocompletion=completion.plugin)
]
Merchant = Annotated[str, typer.Option("--merchant", help="Only of this merchant.")]
State = Annotated[str, typer.Option("--state", help="Only open, in_progress, escalated, mitigated or closed.")]
Sev = Annotated[str, typer.Option("--severity", help="Only low, medium, high or critical.")]
Since = Annotated[str, typer.Option("--since", help="Only what began in the last 24h, 7d, ….")]


@app.command("list")
def list_(
    plugin: Plugin = "", merchant: Merchant = "", state: State = "", severity: Sev = "", since: Since = "",
    limit: Limit = 50, watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Stories, newest first."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.events_pb2 import Severity

        id_ = await id_lookup.optional_plugin(plane, plugin)
        number = formatting.enum_value(Severity, severity, "--severity")
        found = stories(plane, limit, since, plugin=id_, merchant=merchant, state=state, severity=number)
        if json:
            await show_json_list(found)
            return
        now = datetime.now(UTC)
        rows = [_row(one, now) async for one in found]
        columns = ("incident", "plugin", "type", "?severity", "state", "?began", "?tries", "how it ended")
        show_table(columns, rows, empty="no story")

    run(work, watch=watch)


@app.command()
def show(incident: Name, json: Json = False) -> None:
    """One story with all its steps."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.stories_pb2 import GetStoryRequest

        name = f"incidents/{await id_lookup.incident(plane, incident)}"
        found = (await plane.ops.GetStory(GetStoryRequest(name=name), timeout=TIMEOUT)).story
        if json:
            show_json(plain(found))
        else:
            _show(found)

    run(work)


def stories(plane: PlaneClient, limit: int, since: str = "", **filters: Any) -> AsyncIterator[Any]:
    """Stories, newest first."""
    from prunella.v1.stories_pb2 import ListStoriesRequest

    request = ListStoriesRequest(**filters)
    if since:
        request.since_time.FromDatetime(datetime.now(UTC) - formatting.parse_duration(since, "--since"))
    return listings.pages(plane.ops.ListStories, request, "stories", limit)


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


def _show(story: Any) -> None:
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
