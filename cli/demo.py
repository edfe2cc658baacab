"""`prunella demo`: a fleet that breaks on purpose and heals for real."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.output import Json
from cli.plane import guarded

app = typer.Typer(
    help="A fleet that breaks on purpose and heals for real.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def demo(
    ctx: typer.Context,
    exit_: Annotated[bool, typer.Option("--exit", help="Run every scenario on a fresh plane, then end.")] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", "-s", help="Only this one; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Runs scenarios on a fresh plane and tells how each ended; without --exit the fleet goes on until Ctrl-C."""
    if ctx.invoked_subcommand:
        return

    def work() -> int:
        from deploy.demo import runner

        return asyncio.run(runner.run(scenario or [], keep=not exit_, json=json))

    guarded(work)


@app.command("break")
def break_(plugin: Annotated[str, typer.Argument(help="Label of a plugin of the demo, such as shop-1.")]) -> None:
    """Puts the broken release back on one plugin of the running demo."""

    def work() -> int:
        from deploy.demo import fleet

        return asyncio.run(fleet.ask_to_break(plugin))

    guarded(work)
