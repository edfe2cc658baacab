"""`prunella notifications`: what people were told, who has seen it, and who is told of what.

Rule: settings are one document, JSON or TOML, read and written whole. A value `${NAME}` in it comes from the
environment, so that no secret needs to stand in a file; `settings show --json` prints what `settings set` takes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.confirmation import Yes, confirm
from cli.notification_settings_file import load
from cli.output import (
    Json,
    Limit,
    Reason,
    Watch,
    coloured,
    plain,
    safe,
    show_fields,
    show_json,
    show_json_list,
    show_table,
)
from cli.plane_client import FAILED, TIMEOUT, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.plane_client import PlaneClient

app = command_group("What people were told, and who is told of what.")
settings = command_group("Who is told of what, on which channels.", default="show")
app.add_typer(settings, name="settings")

TEST_TIMEOUT = 20.0
Name = Annotated[
    str, typer.Argument(help="Id of the notification, or a unique part of it.", autocompletion=completion.notification)
]
State = Annotated[str, typer.Option("--state", help="Only queued, sending, sent, failed, suppressed or acknowledged.")]
Route = Annotated[str, typer.Option("--route", help="Only of this route.")]
Incident = Annotated[str, typer.Option("--incident", help="Only of this incident.", autocompletion=completion.incident)]
Plugin = Annotated[
    str, typer.Option("--plugin", help="Only of this plugin, by label or id.", autocompletion=completion.plugin)
]


@app.command("list")
def list_(
    state: State = "",
    route: Route = "",
    incident: Incident = "",
    plugin: Plugin = "",
    limit: Limit = 50,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Messages to people and what became of them, newest first."""

    async def work(plane: PlaneClient) -> None:
        about = {
            "incident": await id_lookup.incident(plane, incident) if incident else "",
            "plugin": await id_lookup.optional_plugin(plane, plugin),
        }
        entries = listings.notifications(plane, limit, state=state, route=route, **about)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        rows = [_row(entry, now) async for entry in entries]
        show_table(
            ("id", "state", "?when", "?route", "facts", "?channels", "what"), rows, empty="nobody was told of anything"
        )

    run(work, watch=watch)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """One message: what it tells of, and each channel it went to."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.notification_pb2 import GetNotificationRequest

        request = GetNotificationRequest(name=f"notifications/{await id_lookup.notification(plane, name)}")
        found = (await plane.ops.GetNotification(request, timeout=TIMEOUT)).notification
        if json:
            show_json(plain(found))
            return
        show_fields(_fields(found, datetime.now(UTC)))
        lines = [(f"{line.time.ToDatetime():%H:%M:%S}", _severity(line), safe(line.headline)) for line in found.lines]
        show_table(("time", "severity", "fact"), lines, empty="")
        sent = [_delivery(each) for each in found.deliveries]
        show_table(("channel", "step", "state", "tries", "what it said"), sent, empty="no channel was told")

    run(work)


@app.command()
def ack(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", "-m", help="What you do about it, if you like to say.")] = "",
    json: Json = False,
) -> None:
    """Says that you have seen it: nobody else is told or asked."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.notification_pb2 import AcknowledgeNotificationRequest

        full = f"notifications/{await id_lookup.notification(plane, name)}"
        request = AcknowledgeNotificationRequest(name=full, reason=reason, request_id=new_id())
        found = (await plane.ops.AcknowledgeNotification(request, timeout=TIMEOUT)).notification
        if json:
            show_json(plain(found))
            return
        typer.echo(
            f"{id_lookup.short(found.name)} is acknowledged by {safe(found.acknowledged_by)}; nobody else is asked"
        )

    run(work)


@settings.command("show")
def show_settings(json: Json = False) -> None:
    """Who is told of what; secrets are never shown."""

    async def work(plane: PlaneClient) -> None:
        found = await _settings(plane)
        if json:
            show_json(plain(found))
            return
        changed = f"{formatting.ago(found.update_time, datetime.now(UTC))} by {found.updated_by}: {found.reason}"
        show_fields(
            [
                ("version", str(found.version)),
                ("changed", safe(changed) if found.updated_by else "never; nobody is told, all is only recorded"),
                ("one message per", formatting.duration(found.batch_window.ToTimedelta().total_seconds())),
                ("no repeat within", formatting.duration(found.repeat_window.ToTimedelta().total_seconds())),
                ("tried for", formatting.duration(found.retry_for.ToTimedelta().total_seconds())),
            ]
        )
        channels = [(safe(each.id), *_channel(each)) for each in found.channels]
        show_table(("channel", "kind", "where"), channels, empty="no channel")
        show_table(("route", "hears of", "from", "?quiet", "tells"), map(_route, found.routes), empty="no route")
        hours = ((safe(h.id), f"{h.start}-{h.end}", safe(h.time_zone), " ".join(h.days)) for h in found.quiet_hours)
        show_table(("quiet hours", "from-to", "zone", "days"), hours, empty="no quiet hours")

    run(work)


@settings.command("set")
def set_settings(
    file: Annotated[Path, typer.Argument(help="The whole document, .json or .toml; - reads JSON from standard input.")],
    reason: Reason,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Replaces who is told of what. An empty secret keeps the one there is."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.notification_pb2 import UpdateNotificationSettingsRequest

        made = load(file)
        old = await _settings(plane)
        # Without an etag of its own the file replaces what was just read, and nothing that came later.
        made.etag = made.etag or old.etag
        confirm(f"replace the settings ({_counted(old)}) by those of {file} ({_counted(made)})?", yes=yes)
        request = UpdateNotificationSettingsRequest(settings=made, reason=reason, request_id=new_id())
        answer = (await plane.ops.UpdateNotificationSettings(request, timeout=TIMEOUT)).settings
        if json:
            show_json(plain(answer))
        elif answer.version == old.version:
            typer.echo(f"nothing differs; version {answer.version} stays in force")
        else:
            typer.echo(f"version {answer.version} is in force; try it: prunella notifications settings test CHANNEL")

    run(work)


@settings.command("test")
def try_channel(
    channel: Annotated[str, typer.Argument(help="Id of the channel.")],
    json: Json = False,
) -> None:
    """Sends a real message and says what the other side said."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.notification_pb2 import TestChannelRequest

        request = TestChannelRequest(channel=channel, request_id=new_id())
        answer = await plane.ops.TestChannel(request, timeout=TEST_TIMEOUT)
        if json:
            show_json(plain(answer))
        else:
            took = "took it" if answer.delivered else "did not take it"
            typer.echo(f"{safe(channel)} {took}: {safe(answer.response)}")
        if not answer.delivered:
            raise typer.Exit(FAILED)

    run(work)


async def _settings(plane: PlaneClient) -> Any:
    from prunella.v1.notification_pb2 import GetNotificationSettingsRequest

    return (await plane.ops.GetNotificationSettings(GetNotificationSettingsRequest(), timeout=TIMEOUT)).settings


def _counted(found: Any) -> str:
    return f"{formatting.plural(len(found.channels), 'channel')}, {formatting.plural(len(found.routes), 'route')}"


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


def _channel(channel: Any) -> tuple[str, str]:
    kind = channel.WhichOneof("kind") or "?"
    if kind == "email":
        mail = channel.email
        return kind, safe(f"{', '.join(mail.recipients)} by {mail.host}:{mail.port} ({mail.security})")
    return kind, safe(getattr(channel, kind).url)


def _route(route: Any) -> tuple[str, ...]:
    facts = ", ".join(route.facts) or f"what {route.audience} hear by default"
    if route.merchants:
        facts += f" of {', '.join(route.merchants)}"
    steps = [
        ", ".join(step.channels)
        + (
            f" (acknowledge in {formatting.duration(step.acknowledge_within.ToTimedelta().total_seconds())})"
            if step.acknowledge_within.seconds
            else ""
        )
        for step in route.steps
    ]
    return (
        safe(route.id),
        safe(facts),
        _named(route.min_severity),
        safe(" ".join(route.quiet_hours)),
        safe(" → ".join(steps)),
    )


def _severity(line: Any) -> str:
    return coloured(_named(line.severity))


def _named(severity: int) -> str:
    from prunella.v1.events_pb2 import Severity

    return Severity.Name(severity).removeprefix("SEVERITY_").lower()  # type: ignore[arg-type]
