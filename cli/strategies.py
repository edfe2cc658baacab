"""`prunella strategies`: the ways in which tools heal, how well they did, and which may change something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_show
from cli.options import Json, Reason
from cli.output import coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("The ways in which tools heal, and how well they did.")

StrategyName = Annotated[
    str, typer.Argument(help="Name of the strategy, or the beginning of one.", autocompletion=completion.strategy)
]
Kind = Annotated[str, typer.Option("--type", help="Only for this type of error, such as timeout.")]
State = Annotated[str, typer.Option("--state", help="Only candidate, active, demoted or retired.")]


@app.command("list")
def list_(kind: Kind = "", state: State = "", json: Json = False) -> None:
    """Strategies, best first."""

    async def work(plane: PlaneClient) -> None:
        found = (await plane.call("queue.ListStrategies", type=kind, state=state)).strategies
        if json:
            show_json([plain(one) for one in found])
            return
        columns = ("strategy", "type", "state", "sure", "?helped", "writes", "tools")
        show_table(columns, (_row(one) for one in found), empty="no strategy")

    run(work)


@app.command()
def show(strategy: StrategyName, json: Json = False) -> None:
    """One strategy: its steps, its check, and how its status changed."""
    run_show("queue.GetStrategy", "strategies", strategy, _show, json=json)


@app.command()
def approve(strategy: StrategyName, reason: Reason) -> None:
    """Lets a strategy use its write tools."""
    run_change("queue.ApproveStrategy", "strategies", strategy, _approved, field="strategy", reason=reason)


@app.command()
def revoke(strategy: StrategyName, reason: Reason) -> None:
    """Takes that back: its write tools stay unused from now on."""
    run_change("queue.RevokeStrategy", "strategies", strategy, _revoked, field="strategy", reason=reason)


def _approved(strategy: Any) -> str:
    return f"{safe(strategy.name)} may use its write tools, says {safe(strategy.approved_by)}"


def _revoked(strategy: Any) -> str:
    return f"{safe(strategy.name)} may no longer use its write tools"


async def _show(_plane: PlaneClient, answer: Any) -> None:
    found = answer.strategy
    show_fields(_fields(found))
    show_table(("step", "tool", "writes", "with", "for"), _steps(found), empty="no steps")
    if answer.history:
        show_table(("when", "from", "to", "sure", "?by", "why"), _history(answer), empty="")
    if not found.approved and any(step.write for step in found.steps):
        short = found.name.rpartition("/")[2]
        typer.echo(f"let it use its write tools: prunella strategies approve {short} --reason …", err=True)


def _writes(strategy: Any) -> str:
    if not any(step.write for step in strategy.steps):
        return "reads only"
    return coloured("approved") if strategy.approved else "not approved"


def _row(strategy: Any) -> tuple[str, ...]:
    tried = strategy.successes + strategy.failures
    return (
        safe(strategy.name.rpartition("/")[2]),
        safe(strategy.type),
        coloured(strategy.state),
        f"{strategy.confidence:.2f}",
        f"{strategy.successes} of {tried}" if tried else formatting.NO_VALUE,
        _writes(strategy),
        safe(", ".join(step.tool for step in strategy.steps)),
    )


def _fields(strategy: Any) -> list[tuple[str, str]]:
    check = strategy.check
    return [
        ("strategy", safe(strategy.name)),
        ("title", safe(strategy.title)),
        ("for", safe(f"{strategy.type}{f' on {strategy.package}' if strategy.package else ''}")),
        ("state", coloured(strategy.state)),
        ("confidence", f"{strategy.confidence:.2f} (lower 90 % bound of what was verified)"),
        ("outcomes", f"{strategy.successes} verified, {strategy.failures} not"),
        ("writes", _writes(strategy)),
        ("approved by", safe(strategy.approved_by)),
        ("why", safe(strategy.reason)),
        ("takes about", formatting.proto_duration(strategy.estimated_duration)),
        ("check", safe(f"{check.step.tool}: {check.path} {check.comparison} {check.value}") if check.step.tool else ""),
        ("patterns", safe("   ".join(strategy.patterns))),
        ("changed", formatting.ago(strategy.update_time, datetime.now(UTC)).removeprefix(formatting.NO_VALUE)),
    ]


def _steps(strategy: Any) -> list[tuple[str, ...]]:
    return [
        (str(number), safe(step.tool), "yes" if step.write else "", safe(step.arguments), safe(step.purpose))
        for number, step in enumerate(strategy.steps, 1)
    ]


def _history(answer: Any) -> list[tuple[str, ...]]:
    now = datetime.now(UTC)
    return [
        (
            formatting.ago(entry.create_time, now),
            coloured(entry.from_state or formatting.NO_VALUE),
            coloured(entry.to_state),
            f"{entry.confidence:.2f}",
            safe(entry.actor),
            safe(entry.reason),
        )
        for entry in answer.history
    ]
