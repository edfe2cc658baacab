"""`prunella notifications`: what people were told, who has seen it, and who is told of what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings, notification_settings
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.options import Json, Limit, NotificationName, Watch
from cli.output import coloured, safe, show_fields, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.plane_client import PlaneClient

app = command_group("What people were told, and who is told of what.")
app.add_typer(notification_settings.app, name="settings")

COLUMNS = ("id", "state", "?when", "?route", "facts", "?channels", "what")
State = Annotated[str, typer.Option("--state", help="Only queued, sending, sent, failed, suppressed or acknowledged.")]
Route = Annotated[str, typer.Option("--route", help="Only of this route.")]
Incident = Annotated[str, typer.Option("--incident", help="Only of this incident.", autocompletion=completion.incident)]
Plugin = Annotated[
    str, typer.Option("--plugin", help="Only of this plugin, by label or id.", autocompletion=completion.plugin)
]
Note = Annotated[str, typer.Option("--reason", "-m", help="What you do about it, if you like to say.")]


@app.command("list")
def list_(
    state: State = "", route: Route = "", incident: Incident = "", plugin: Plugin = "", limit: Limit = 50,
    watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Messages to people and what became of them, newest first."""
    run_list(
        listings.notifications, limit, COLUMNS, _row, empty="nobody was told of anything", json=json, watch=watch,
        state=state, route=route, incident=incident, plugin=plugin,
    )  # fmt: skip


@app.command()
def show(name: NotificationName, json: Json = False) -> None:
    """One message: what it tells of, and each channel it went to."""
    run_show("ops.GetNotification", "notifications", name, _show, field="notification", json=json)


@app.command()
def ack(name: NotificationName, reason: Note = "", json: Json = False) -> None:
    """Says that you have seen it: nobody else is told or asked."""
    run_change(
        "ops.AcknowledgeNotification", "notifications", name, _acknowledged, field="notification", json=json,
        reason=reason,
    )  # fmt: skip


def _acknowledged(found: Any) -> str:
    return f"{id_lookup.short(found.name)} is acknowledged by {safe(found.acknowledged_by)}; nobody else is asked"


async def _show(_plane: PlaneClient, found: Any) -> None:
    show_fields(_fields(found, datetime.now(UTC)))
    lines = [
        (f"{line.time.ToDatetime():%H:%M:%S}", _severity(line), safe(line.headline), safe(line.command))
        for line in found.lines
    ]
    show_table(("time", "severity", "fact", "?what to type"), lines, empty="")
    sent = [_delivery(each) for each in found.deliveries]
    show_table(("channel", "step", "state", "tries", "what it said"), sent, empty="no channel was told")


def _row(entry: Any, now: datetime) -> tuple[str, ...]:
    channels = ", ".join(dict.fromkeys(each.channel for each in entry.deliveries)) or formatting.NO_VALUE
    again = f" +{entry.repeats}" if entry.repeats else ""
    return (
        id_lookup.short(entry.name),
        coloured(entry.state),
        formatting.ago(entry.create_time, now),
        safe(entry.route or formatting.NO_VALUE),
        f"{entry.facts}{again}",
        safe(channels),
        safe(entry.title),
    )


def _fields(found: Any, now: datetime) -> Iterator[tuple[str, str]]:
    yield "notification", safe(found.name)
    yield "state", f"{coloured(found.state)} · {safe(found.detail)}"
    yield "what", safe(found.title)
    yield "facts", f"{found.facts}, and {found.repeats} times the same again" if found.repeats else str(found.facts)
    yield "route", safe(found.route)
    yield "opened", formatting.ago(found.create_time, now)
    if found.state == "queued":
        yield "goes out", formatting.ago(found.due_time, now)
    if found.HasField("act_by_time"):
        yield "next step", f"{formatting.ago(found.act_by_time, now)}, unless somebody answers"
    if found.acknowledged_by:
        yield "seen", f"{formatting.ago(found.acknowledge_time, now)} by {safe(found.acknowledged_by)}"


def _delivery(each: Any) -> tuple[str, ...]:
    detail = each.last_error if each.state != "sent" else each.response
    return (safe(each.channel), str(each.step + 1), coloured(each.state), str(each.tries), safe(detail))


def _severity(line: Any) -> str:
    from prunella.v1.events_pb2 import Severity

    return coloured(formatting.enum_label(Severity, line.severity))
