"""`prunella strategies`: the ways in which tools heal, how well they did, and which may change something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting
from cli.command_groups import command_group
from cli.output import Json, Reason, coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import TIMEOUT, run

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
        found = await _all(plane, type=kind, state=state)
        if json:
            show_json([plain(one) for one in found])
            return
        columns = ("strategy", "type", "state", "sure", "?helped", "writes", "tools")
        show_table(columns, (_row(one) for one in found), empty="no strategy")

    run(work)


@app.command()
def show(strategy: StrategyName, json: Json = False) -> None:
    """One strategy: its steps, its check, and how its status changed."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.queue_pb2 import GetStrategyRequest

        answer = await plane.queue.GetStrategy(GetStrategyRequest(name=await named(plane, strategy)), timeout=TIMEOUT)
        if json:
            show_json(plain(answer))
            return
        found = answer.strategy
        show_fields(_fields(found))
        show_table(("step", "tool", "writes", "with", "for"), _steps(found), empty="no steps")
        if answer.history:
            show_table(("when", "from", "to", "sure", "?by", "why"), _history(answer), empty="")
        if not found.approved and any(step.write for step in found.steps):
            short = found.name.rpartition("/")[2]
            typer.echo(f"let it use its write tools: prunella strategies approve {short} --reason …", err=True)

    run(work)


@app.command()
def approve(strategy: StrategyName, reason: Reason) -> None:
    """Lets a strategy use its write tools."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import ApproveStrategyRequest

        request = ApproveStrategyRequest(name=await named(plane, strategy), reason=reason, request_id=new_id())
        answer = (await plane.queue.ApproveStrategy(request, timeout=TIMEOUT)).strategy
        typer.echo(f"{safe(answer.name)} may use its write tools, says {safe(answer.approved_by)}")

    run(work)


@app.command()
def revoke(strategy: StrategyName, reason: Reason) -> None:
    """Takes that back: its write tools stay unused from now on."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import RevokeStrategyRequest

        request = RevokeStrategyRequest(name=await named(plane, strategy), reason=reason, request_id=new_id())
        answer = (await plane.queue.RevokeStrategy(request, timeout=TIMEOUT)).strategy
        typer.echo(f"{safe(answer.name)} may no longer use its write tools")

    run(work)


async def named(plane: PlaneClient, typed: str) -> str:
    """strategies/{strategy} for a name or the unique beginning of one. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound

    text = typed.strip().removeprefix("strategies/")
    names = [one.name.removeprefix("strategies/") for one in await _all(plane)]
    found = [text] if text in names else [name for name in names if text and name.startswith(text)]
    if not found:
        raise NotFound(f"no strategy begins with {text!r}; see: prunella strategies", reason="UNKNOWN_STRATEGY")
    if len(found) > 1:
        raise Invalid(f"{text!r} fits {', '.join(found)}; type more of it", reason="AMBIGUOUS_STRATEGY")
    return f"strategies/{found[0]}"


async def _all(plane: PlaneClient, **filters: str) -> list[Any]:
    from prunella.v1.queue_pb2 import ListStrategiesRequest

    answer = await plane.queue.ListStrategies(ListStrategiesRequest(**filters), timeout=TIMEOUT)
    return list(answer.strategies)


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
