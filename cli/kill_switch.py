"""`prunella kill-switch`: stops automation, at once and everywhere it is said to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli import formatting, id_lookup
from cli.command_shapes import show_answer
from cli.options import Json, Reason
from cli.output import coloured, plain, safe, show_json, show_table
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient
    from prunella.v1.patcher_pb2 import KillSwitch

app = typer.Typer(help="Stops automation, at once.", no_args_is_help=True, pretty_exceptions_enable=False)

# Engage waits for permits that are being given; it must not give up before they are.
PATIENCE = 30.0

Scope = Annotated[
    str, typer.Option("--scope", "-s", help="global, merchants/{m}, plugins/{p} or actions/{a}; labels work too.")
]


@app.command()
def engage(
    reason: Reason,
    scope: Scope = "global",
    revert: Annotated[bool, typer.Option("--revert", help="Also take back what is in probation.")] = False,
    json: Json = False,
) -> None:
    """No new switch is permitted in the scope from the moment this answers."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.events_pb2 import Action

        fields = {"scope": await _scope(plane, scope), "reason": reason, "revert_in_flight": revert}
        answer = await plane.call("patcher.EngageKillSwitch", timeout=PATIENCE, **fields)
        if json:
            show_json(plain(answer))
            return
        typer.echo(f"kill switch engaged for {answer.kill_switch.scope} (epoch {answer.kill_switch.epoch})")
        rows = [
            (
                id_lookup.short(one.name),
                safe(formatting.action_summary(one, Action)),
                coloured(one.state),
                id_lookup.short(one.plugin),
            )
            for one in answer.in_flight
        ]
        show_table(("in flight", "remedy", "state", "plugin"), rows, empty="nothing was in flight")
        if rows and not revert:
            typer.echo("take one back with: prunella attempts rollback ID --reason …", err=True)

    run(work)


@app.command()
def release(
    reason: Reason,
    scope: Scope = "global",
    epoch: Annotated[
        int,
        typer.Option("--epoch", min=0, help="The engagement to end; the present one when left out."),
    ] = 0,
    json: Json = False,
) -> None:
    """Automation may go on in the scope."""

    async def work(plane: PlaneClient) -> None:
        wanted = await _scope(plane, scope)
        standing = None if epoch else await _engagement(plane, wanted)
        if not (named := epoch or (standing.epoch if standing else 0)):
            from prunella.v1.patcher_pb2 import KillSwitch

            show_answer(KillSwitch(scope=wanted), lambda _: f"no kill switch is engaged for {wanted}", json=json)
            return
        fields = {"scope": wanted, "reason": reason, "epoch": named}
        answer = await plane.call("patcher.ReleaseKillSwitch", timeout=PATIENCE, **fields)
        show_answer(answer.kill_switch, lambda released: f"kill switch released for {released.scope}", json=json)

    run(work)


@app.command()
def status(json: Json = False) -> None:
    """Every kill switch that is or was engaged."""

    async def work(plane: PlaneClient) -> None:
        answer = await plane.call("patcher.ListKillSwitches", timeout=PATIENCE)
        if json:
            show_json([plain(one) for one in answer.kill_switches])
            return
        now = datetime.now(UTC)
        rows = [
            (
                safe(one.scope),
                coloured("engaged" if one.engaged else "released"),
                str(one.epoch),
                formatting.ago(one.update_time, now),
                safe(one.actor),
                safe(one.reason),
            )
            for one in answer.kill_switches
        ]
        show_table(("scope", "state", "epoch", "since", "by", "why"), rows, empty="no kill switch was ever engaged")

    run(work)


async def _engagement(plane: PlaneClient, scope: str) -> KillSwitch | None:
    """The engagement that stands in a scope."""
    answer = await plane.call("patcher.ListKillSwitches", timeout=PATIENCE)
    return next((one for one in answer.kill_switches if one.scope == scope and one.engaged), None)


async def _scope(plane: PlaneClient, typed: str) -> str:
    collection, found, name = typed.partition("/")
    if typed == "global" or (found and collection in {"merchants", "actions"} and name):
        return typed
    if collection == "plugins" and name:
        return f"plugins/{await id_lookup.plugin(plane, name)}"
    raise typer.BadParameter("use global, merchants/{m}, plugins/{p} or actions/{a}", param_hint="--scope")
