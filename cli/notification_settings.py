"""`prunella notifications settings`: who is told of what.

Rule: settings are one document, JSON or TOML, read and written whole. A value `${NAME}` in it comes from the
environment, so that no secret needs to stand in a file; `settings show --json` prints what `settings set` takes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting
from cli.command_groups import command_group
from cli.command_shapes import show_answer
from cli.confirmation import confirm
from cli.notification_settings_file import load
from cli.options import Json, Reason, Yes
from cli.output import plain, safe, show_fields, show_json, show_table
from cli.plane_client import FAILED, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Who is told of what, on which channels.", default="show")

TEST_TIMEOUT = 20.0
File = Annotated[Path, typer.Argument(help="The whole document, .json or .toml; - reads JSON from standard input.")]


@app.command()
def show(json: Json = False) -> None:
    """Who is told of what; secrets are never shown."""

    async def work(plane: PlaneClient) -> None:
        found = await _settings(plane)
        if json:
            show_json(plain(found))
        else:
            _show(found)

    run(work)


@app.command("set")
def set_(file: File, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Replaces who is told of what. An empty secret keeps the one there is."""

    async def work(plane: PlaneClient) -> None:
        made, old = load(file), await _settings(plane)
        # Without an etag of its own the file replaces what was just read, and nothing that came later.
        made.etag = made.etag or old.etag
        confirm(f"replace the settings ({_counted(old)}) by those of {file} ({_counted(made)})?", yes=yes)
        answer = await plane.call("ops.UpdateNotificationSettings", settings=made, reason=reason)
        text = f"version {answer.settings.version} is in force; try it: prunella notifications settings test CHANNEL"
        if answer.settings.version == old.version:
            text = f"nothing differs; version {old.version} stays in force"
        show_answer(answer.settings, lambda _settings: text, json=json)

    run(work)


@app.command("test")
def try_channel(
    channel: Annotated[str, typer.Argument(help="Id of the channel.")],
    json: Json = False,
) -> None:
    """Sends a real message and says what the other side said."""

    async def work(plane: PlaneClient) -> int:
        answer = await plane.call("ops.TestChannel", timeout=TEST_TIMEOUT, channel=channel)
        took = "took it" if answer.delivered else "did not take it"
        show_answer(answer, lambda sent: f"{safe(channel)} {took}: {safe(sent.response)}", json=json)
        return 0 if answer.delivered else FAILED

    run(work)


async def _settings(plane: PlaneClient) -> Any:
    return (await plane.call("ops.GetNotificationSettings")).settings


def _counted(found: Any) -> str:
    return f"{formatting.plural(len(found.channels), 'channel')}, {formatting.plural(len(found.routes), 'route')}"


def _show(found: Any) -> None:
    changed = f"{formatting.ago(found.update_time, datetime.now(UTC))} by {found.updated_by}: {found.reason}"
    show_fields(
        [
            ("version", str(found.version)),
            ("changed", safe(changed) if found.updated_by else "never; nobody is told, all is only recorded"),
            ("one message per", formatting.duration(found.batch_window.ToTimedelta().total_seconds())),
            ("no repeat within", formatting.duration(found.repeat_window.ToTimedelta().total_seconds())),
            ("told in sum each", formatting.duration(found.summary_interval.ToTimedelta().total_seconds())),
            ("tried for", formatting.duration(found.retry_for.ToTimedelta().total_seconds())),
        ]
    )
    channels = [(safe(each.id), *_channel(each)) for each in found.channels]
    show_table(("channel", "kind", "where"), channels, empty="no channel")
    show_table(("route", "hears of", "from", "?quiet", "tells"), map(_route, found.routes), empty="no route")
    hours = ((safe(h.id), f"{h.start}-{h.end}", safe(h.time_zone), " ".join(h.days)) for h in found.quiet_hours)
    show_table(("quiet hours", "from-to", "zone", "days"), hours, empty="no quiet hours")


def _channel(channel: Any) -> tuple[str, str]:
    kind = channel.WhichOneof("kind") or "?"
    if kind == "email":
        mail = channel.email
        return kind, safe(f"{', '.join(mail.recipients)} by {mail.host}:{mail.port} ({mail.security})")
    return kind, safe(getattr(channel, kind).url)


def _route(route: Any) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Severity

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
        formatting.enum_label(Severity, route.min_severity),
        safe(" ".join(route.quiet_hours)),
        safe(" → ".join(steps)),
    )
