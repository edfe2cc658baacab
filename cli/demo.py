"""`prunella demo`: a fleet that breaks on purpose and heals for real."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from cli import completion
from cli.formatting import NO_VALUE, duration
from cli.options import Json
from cli.output import safe, show_json, show_table
from cli.plane_client import UNREACHABLE, USAGE_ERROR, fail, guarded

app = typer.Typer(
    help="A fleet that breaks on purpose and heals for real.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)

STEPS = ("detect_s", "decide_s", "act_s", "verify_s", "total_s")


@app.callback()
def demo(
    ctx: typer.Context,
    exit_: Annotated[bool, typer.Option("--exit", help="Play every scenario on a fresh plane, then end.")] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", "-s", help="Only this one; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Starts the demo and stays (as `up --demo`); with --exit, --scenario or --json plays scenarios and ends.

    Scenarios play on a fresh plane of their own; what happens is told on standard error. The exit status is 0 only when
    each ended as it must and nothing was lost.
    """
    if ctx.invoked_subcommand is None:
        guarded(lambda: _play(scenario or [], json=json) if exit_ or scenario or json else _stay())


@app.command("break")
def break_(
    plugin: Annotated[
        str, typer.Argument(help="Label of a plugin of the demo, such as shop-7.", autocompletion=completion.plugin)
    ],
    release: Annotated[str, typer.Option("--release", help="The release it gets; empty for a broken one.")] = "",
) -> None:
    """Puts a broken release into one plugin of the running demo, as a careless person would."""

    def work() -> int:
        from deploy.demo import control_socket
        from deploy.local import state

        try:
            done = asyncio.run(control_socket.ask_to_break(state.locate(), plugin, release or control_socket.BROKEN))
        except control_socket.DemoNotRunning as absent:
            fail(str(absent), UNREACHABLE)
        except ValueError as refusal:
            fail(str(refusal))
        typer.echo(f"{done}; watch it heal: prunella timeline --watch --plugin {plugin}")
        return 0

    guarded(work)


def _stay() -> int:
    from deploy.demo import start

    return asyncio.run(start.up())


def _play(names: list[str], *, json: bool) -> int:
    from deploy.demo import start

    try:
        status, document = asyncio.run(start.play(names))
    except KeyError as unknown:
        from deploy.demo.scenarios import runner

        known = ", ".join(scenario.name for scenario in runner.select([]))
        fail(f"there is no scenario {unknown}; there are {known}", USAGE_ERROR)
    if json and document:
        show_json(document)
    elif document:
        _show(document)
    return status


def _show(document: dict[str, Any]) -> None:
    rows = [
        (
            safe(one["name"]),
            "[green]✓[/]" if one["ok"] else "[red]✗[/]",
            safe(one["outcome"]),
            *(duration(one[step]) if one.get(step) is not None else NO_VALUE for step in STEPS),
            "complete" if one["trace_complete"] else NO_VALUE,
        )
        for one in document["scenarios"]
    ]
    columns = ("scenario", "ended", "outcome", "detect", "decide", "act", "verify", "total", "trace")
    show_table(columns, rows, empty="no scenario was played")
    beats = document["beats"]
    typer.echo(
        f"{document['duration_s']} s; beats sent {beats['sent']}, acknowledged {beats['acknowledged']}, "
        f"stored {beats['stored']}; lost {document['lost']}"
    )
