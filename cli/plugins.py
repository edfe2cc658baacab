"""`prunella plugins`: the fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.options import Json, Limit, Package, Reason, Watch
from cli.output import coloured, plain, safe, show_fields, show_json
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("The fleet: who runs what, and how it is.")

COLUMNS = ("plugin", "id", "?package", "release", "health", "?session", "?last beat", "fails", "incidents")
# Seconds that a beat may take on its way.
SKEW_SHOWN = 5.0
NONE_YET = "no plugin yet; an agent joins with a token, and the demo with: prunella up --demo"
Merchant = Annotated[str, typer.Option("--merchant", help="Only at this merchant.")]
Release = Annotated[str, typer.Option("--release", help="Only with this release.")]
Health = Annotated[str, typer.Option("--health", help="Only so: healthy, unhealthy, down or starting.")]
PluginName = Annotated[
    str, typer.Argument(help="Label, id, or a unique part of the id.", autocompletion=completion.plugin)
]


@app.command("list")
def list_(
    package: Package = "", merchant: Merchant = "", release: Release = "", health: Health = "", limit: Limit = 50,
    watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Plugins, newest first."""
    from prunella.v1 import agent_pb2

    state = formatting.enum_value(agent_pb2.Health, health, "--health")
    run_list(
        listings.plugins, limit, COLUMNS, _row, empty=NONE_YET, json=json, watch=watch,
        package=package, merchant=merchant, release=release, health=state,
    )  # fmt: skip


@app.command()
def show(plugin: PluginName, json: Json = False) -> None:
    """One plugin with everything it says of itself."""
    run_show("ingest.GetPlugin", "plugins", plugin, _show, field="plugin", json=json)


@app.command()
def token(
    package: Annotated[str, typer.Option("--package", help="The package the plugin runs.")],
    merchant: Annotated[str, typer.Option("--merchant", help="Where it is installed; needless with --replace.")] = "",
    label: Annotated[str, typer.Option("--label", help="The short name people will use for it.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="In place of the plugin that has this label now.")] = False,
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=1440, help="How long the token can be used.")] = 15,
    json: Json = False,
) -> None:
    """Makes a one-time token with which an agent joins the fleet."""

    async def work(plane: PlaneClient) -> None:
        lifetime = timedelta(minutes=minutes)
        answer = await plane.call(
            "ingest.CreateEnrollmentToken", package=package, merchant=merchant, label=label, replace=replace,
            lifetime=lifetime,
        )  # fmt: skip
        if json:
            show_json(plain(answer))
            return
        typer.echo(answer.token)
        agent = f"python -m prunella_agent --plane {plane.addresses['ingest']} --package {package}"
        if replace:
            typer.echo(f"enrolling with it retires the plugin that is called {label} now", err=True)
        typer.echo(f"told once, good for {minutes} min; then: {agent} --token TOKEN --folder DIR …", err=True)

    run(work)


@app.command()
def retire(plugin: PluginName, reason: Reason, json: Json = False) -> None:
    """Ends a plugin's life: its incidents close, its attempts without a permit are cancelled."""
    run_change("ingest.RetirePlugin", "plugins", plugin, _retired, field="plugin", reason=reason, json=json)


@app.command("release-quarantine")
def release_quarantine(plugin: PluginName, reason: Reason, json: Json = False) -> None:
    """Lets a plugin in again that was shut out because two agents used its identity; end one of them first."""
    run_change(
        "ingest.ReleaseFromQuarantine", "plugins", plugin, _released, field="plugin", reason=reason, json=json
    )  # fmt: skip


def _released(plugin: Any) -> str:
    again = "; it is shut out again if two agents still use its identity" if plugin.state == "active" else ""
    return _retired(plugin) + again


def _retired(plugin: Any) -> str:
    return f"{safe(plugin.label or id_lookup.short(plugin.name))} is {plugin.state}"


async def _show(_plane: PlaneClient, plugin: Any) -> None:
    show_fields(_fields(plugin))


def _row(plugin: Any, now: datetime) -> tuple[str, ...]:
    return (
        safe(plugin.label or id_lookup.short(plugin.name)),
        id_lookup.short(plugin.name),
        safe(plugin.package),
        safe(plugin.release),
        coloured(formatting.plugin_state(plugin)),
        "open" if plugin.connected else "—",
        formatting.ago(plugin.last_beat_time, now),
        f"{plugin.webhook_fail_rate:.0%}",
        str(len(plugin.open_incidents)) if plugin.open_incidents else "",
    )


def clock_skew(plugin: Any) -> str:
    """By how much a plugin's own clock differs."""
    if not plugin.HasField("clock_skew"):
        return "-"
    seconds = plugin.clock_skew.ToTimedelta().total_seconds()
    if abs(seconds) < SKEW_SHOWN:
        return "as ours"
    return f"{formatting.duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} ours"


def _fields(plugin: Any) -> list[tuple[str, str]]:
    now, back_by = datetime.now(UTC), formatting.to_datetime(plugin.back_by_time)
    return [
        ("plugin", safe(plugin.label)),
        ("id", plugin.name.rpartition("/")[2]),
        ("merchant", safe(plugin.merchant)),
        ("runs", safe(f"{plugin.package} {plugin.release}")),
        ("generation", str(plugin.generation)),
        ("digest", plugin.digest),
        ("config", plugin.config_digest),
        ("config expected", plugin.expected_config_digest or "-"),
        ("health", coloured(formatting.plugin_state(plugin))),
        ("session", "open" if plugin.connected else "none"),
        ("back by", f"{back_by:%Y-%m-%d %H:%M:%S} UTC" if back_by else "-"),
        ("last beat", f"{formatting.ago(plugin.last_beat_time, now)} ({plugin.beats} in all)"),
        ("its clock", clock_skew(plugin)),
        ("joined", formatting.ago(plugin.enroll_time, now)),
        ("failing webhooks", f"{plugin.webhook_fail_rate:.1%}"),
        ("errors in window", str(plugin.errors_in_window)),
        ("can do", safe(", ".join(plugin.capabilities))),
        ("environment", safe(", ".join(f"{key}={value}" for key, value in sorted(plugin.environment.items())))),
        ("numbers", safe(", ".join(f"{key}={value:g}" for key, value in sorted(plugin.numbers.items())))),
        ("open incidents", ", ".join(id_lookup.short(name) for name in plugin.open_incidents)),
    ]
