"""`prunella plugins`: the fleet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
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
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("The fleet: who runs what, and how it is.")

Package = Annotated[str, typer.Option("--package", help="Only of this package.")]
Merchant = Annotated[str, typer.Option("--merchant", help="Only at this merchant.")]
Release = Annotated[str, typer.Option("--release", help="Only with this release.")]
Health = Annotated[str, typer.Option("--health", help="Only so: healthy, unhealthy, down or starting.")]
PluginName = Annotated[
    str, typer.Argument(help="Label, id, or a unique part of the id.", autocompletion=completion.plugin)
]


@app.command("list")
def list_(
    package: Package = "",
    merchant: Merchant = "",
    release: Release = "",
    health: Health = "",
    limit: Limit = 50,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Plugins, newest first."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1 import agent_pb2

        state = formatting.enum_value(agent_pb2.Health, health, "--health")
        filters = {"package": package, "merchant": merchant, "release": release, "health": state}
        entries = listings.plugins(plane, limit, **filters)
        if json:
            await show_json_list(entries)
            return
        now = datetime.now(UTC)
        rows = [_row(plugin, now) for plugin in [entry async for entry in entries]]
        columns = ("plugin", "id", "?package", "release", "health", "?session", "?last beat", "fails", "incidents")
        show_table(
            columns, rows, empty="no plugin yet; an agent joins with a token, and the demo with: prunella up --demo"
        )

    run(work, watch=watch)


@app.command()
def show(plugin: PluginName, json: Json = False) -> None:
    """One plugin with everything it says of itself."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.ingest_pb2 import GetPluginRequest

        id_ = await id_lookup.plugin(plane, plugin)
        answer = await plane.ingest.GetPlugin(GetPluginRequest(name=f"plugins/{id_}"), timeout=TIMEOUT)
        if json:
            show_json(plain(answer.plugin))
            return
        show_fields(_fields(answer.plugin))

    run(work)


@app.command()
def token(
    package: Annotated[str, typer.Option("--package", help="The package the plugin runs.")],
    merchant: Annotated[str, typer.Option("--merchant", help="Where it is installed.")],
    label: Annotated[str, typer.Option("--label", help="The short name people will use for it.")] = "",
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=1440, help="How long the token can be used.")] = 15,
    json: Json = False,
) -> None:
    """Makes a one-time token with which an agent joins the fleet."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.ingest_pb2 import CreateEnrollmentTokenRequest

        request = CreateEnrollmentTokenRequest(request_id=new_id(), package=package, merchant=merchant, label=label)
        request.lifetime.FromSeconds(minutes * 60)
        answer = await plane.ingest.CreateEnrollmentToken(request, timeout=TIMEOUT)
        if json:
            show_json(plain(answer))
            return
        typer.echo(answer.token)
        agent = f"python -m prunella_agent --plane {plane.addresses['ingest']} --package {package}"
        typer.echo(f"told once, good for {minutes} min; then: {agent} --token TOKEN --folder DIR …", err=True)

    run(work)


@app.command()
def retire(plugin: PluginName, reason: Reason) -> None:
    """Ends a plugin's life: its incidents close, its attempts without a permit are cancelled."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.ingest_pb2 import RetirePluginRequest

        name = f"plugins/{await id_lookup.plugin(plane, plugin)}"
        request = RetirePluginRequest(name=name, request_id=new_id(), reason=reason)
        answer = await plane.ingest.RetirePlugin(request, timeout=TIMEOUT)
        typer.echo(f"{safe(answer.plugin.label or id_lookup.short(name))} is {answer.plugin.state}")

    run(work)


def _state(plugin: Any) -> str:
    from prunella.v1.agent_pb2 import Health as Enum

    return plugin.state if plugin.state != "active" else formatting.enum_label(Enum, plugin.health)


def _row(plugin: Any, now: datetime) -> tuple[str, ...]:
    return (
        safe(plugin.label or id_lookup.short(plugin.name)),
        id_lookup.short(plugin.name),
        safe(plugin.package),
        safe(plugin.release),
        coloured(_state(plugin)),
        "open" if plugin.connected else "—",
        formatting.ago(plugin.last_beat_time, now),
        f"{plugin.webhook_fail_rate:.0%}",
        str(len(plugin.open_incidents)) if plugin.open_incidents else "",
    )


def _fields(plugin: Any) -> list[tuple[str, str]]:
    now = datetime.now(UTC)
    return [
        ("plugin", safe(plugin.label)),
        ("id", plugin.name.rpartition("/")[2]),
        ("merchant", safe(plugin.merchant)),
        ("runs", safe(f"{plugin.package} {plugin.release}")),
        ("generation", str(plugin.generation)),
        ("digest", plugin.digest),
        ("config", plugin.config_digest),
        ("config expected", plugin.expected_config_digest or "-"),
        ("health", coloured(_state(plugin))),
        ("session", "open" if plugin.connected else "none"),
        ("last beat", f"{formatting.ago(plugin.last_beat_time, now)} ({plugin.beats} in all)"),
        ("joined", formatting.ago(plugin.enroll_time, now)),
        ("failing webhooks", f"{plugin.webhook_fail_rate:.1%}"),
        ("errors in window", str(plugin.errors_in_window)),
        ("can do", safe(", ".join(plugin.capabilities))),
        ("environment", safe(", ".join(f"{key}={value}" for key, value in sorted(plugin.environment.items())))),
        ("numbers", safe(", ".join(f"{key}={value:g}" for key, value in sorted(plugin.numbers.items())))),
        ("open incidents", ", ".join(id_lookup.short(name) for name in plugin.open_incidents)),
    ]
