"""`prunella kill-switch`: stops automation, at once and everywhere it is said to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli import formatting, id_lookup
from cli.output import Json, Reason, coloured, plain, safe, show_json, show_table
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

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
        from libs.common.names import new_id
        from prunella.v1.events_pb2 import Action
        from prunella.v1.patcher_pb2 import EngageKillSwitchRequest

        request = EngageKillSwitchRequest(
            scope=await _scope(plane, scope), reason=reason, request_id=new_id(), revert_in_flight=revert
        )
        answer = await plane.patcher.EngageKillSwitch(request, timeout=PATIENCE)
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
def release(reason: Reason, scope: Scope = "global", json: Json = False) -> None:
    """Automation may go on in the scope."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import ReleaseKillSwitchRequest

        request = ReleaseKillSwitchRequest(scope=await _scope(plane, scope), reason=reason, request_id=new_id())
        answer = await plane.patcher.ReleaseKillSwitch(request, timeout=PATIENCE)
        if json:
            show_json(plain(answer.kill_switch))
            return
        typer.echo(f"kill switch released for {answer.kill_switch.scope}")

    run(work)


@app.command()
def status(json: Json = False) -> None:
    """Every kill switch that is or was engaged."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import ListKillSwitchesRequest

        answer = await plane.patcher.ListKillSwitches(ListKillSwitchesRequest(), timeout=PATIENCE)
        if json:
            show_json([plain(one) for one in answer.kill_switches])
            return
        now = datetime.now(UTC)
        rows = [
            (
                safe(one.scope),
                coloured("engaged" if one.engaged else "released"),
                formatting.ago(one.update_time, now),
                safe(one.actor),
                safe(one.reason),
            )
            for one in answer.kill_switches
        ]
        show_table(("scope", "state", "since", "by", "why"), rows, empty="no kill switch was ever engaged")

    run(work)


async def _scope(plane: PlaneClient, typed: str) -> str:
    collection, found, name = typed.partition("/")
    if typed == "global" or (found and collection in {"merchants", "actions"} and name):
        return typed
    if collection == "plugins" and name:
        return f"plugins/{await id_lookup.plugin(plane, name)}"
    raise typer.BadParameter("use global, merchants/{m}, plugins/{p} or actions/{a}", param_hint="--scope")
