"""`prunella attempts`: remedies on their way, and what became of them."""

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
from cli.plane_client import FAILED, TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Remedies on their way, and what became of them.")

AttemptName = Annotated[
    str, typer.Argument(help="Id of the attempt, or a unique part of it.", autocompletion=completion.attempt)
]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only on this plugin: label or id.", autocompletion=completion.plugin)
]
Incident = Annotated[
    str, typer.Option("--incident", "-i", help="Only for this incident.", autocompletion=completion.incident)
]
State = Annotated[str, typer.Option("--state", help="Only in this state, such as probation or success.")]
REMEDIES = ("patch", "rollback", "restart", "config_fix")
Remedy = Annotated[str, typer.Argument(metavar="ACTION", help="patch, rollback, restart or config_fix.")]
Target = Annotated[str, typer.Argument(help="Release for a patch, configuration for a config_fix.")]
OnPlugin = Annotated[
    str, typer.Option("--plugin", "-p", help="To which plugin: label or id.", autocompletion=completion.plugin)
]
ForIncident = Annotated[
    str,
    typer.Option("--incident", "-i", help="To heal this incident, and its plugin.", autocompletion=completion.incident),
]


@app.command("list")
def list_(
    plugin: Plugin = "",
    incident: Incident = "",
    state: State = "",
    limit: Limit = 50,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Attempts, newest first."""

    async def work(plane: PlaneClient) -> None:
        filters = {
            "plugin": await id_lookup.optional_plugin(plane, plugin),
            "incident": await id_lookup.incident(plane, incident) if incident else "",
            "state": state,
        }
        entries = listings.attempts(plane, limit, **filters)
        if json:
            await show_json_list(entries)
            return
        found = [entry async for entry in entries]
        labels = await id_lookup.labels(plane, (entry.plugin for entry in found))
        now = datetime.now(UTC)
        columns = ("attempt", "plugin", "remedy", "state", "?round", "?began", "?took", "why")
        show_table(columns, (_row(entry, labels, now) for entry in found), empty="no attempt")

    run(work, watch=watch)


@app.command()
def show(attempt: AttemptName, json: Json = False) -> None:
    """One attempt, step by step."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.patcher_pb2 import GetAttemptRequest

        id_ = await id_lookup.attempt(plane, attempt)
        found = (await plane.patcher.GetAttempt(GetAttemptRequest(name=f"attempts/{id_}"), timeout=TIMEOUT)).attempt
        if json:
            show_json(plain(found))
            return
        labels = await id_lookup.labels(plane, [found.plugin])
        show_fields(_fields(found, labels))
        _show_steps(found)

    run(work)


@app.command()
def create(
    action: Remedy, reason: Reason, target: Target = "", plugin: OnPlugin = "", incident: ForIncident = ""
) -> None:
    """Wants a remedy by hand; gates, staging, approvals of others and probation are those of any attempt."""

    async def work(plane: PlaneClient) -> int:
        from libs.common.names import new_id
        from prunella.v1.events_pb2 import Action
        from prunella.v1.patcher_pb2 import CreateAttemptRequest

        if action not in REMEDIES:
            raise typer.BadParameter(f"use {', '.join(REMEDIES)}", param_hint="ACTION")
        request = CreateAttemptRequest(
            plugin=await id_lookup.plugin(plane, plugin) if plugin else "",
            incident=f"incidents/{await id_lookup.incident(plane, incident)}" if incident else "",
            action=Action.Value(f"ACTION_{action.upper()}"),
            target=target,
            reason=reason,
            request_id=new_id(),
        )
        made = (await plane.patcher.CreateAttempt(request, timeout=TIMEOUT)).attempt
        why = f": {safe(made.reason)}" if made.reason else ""
        typer.echo(f"attempt {id_lookup.short(made.name)} is {made.state}{why}")
        return FAILED if made.state in {"refused", "failed", "cancelled"} else 0

    run(work)


@app.command()
def rollback(attempt: AttemptName, reason: Reason) -> None:
    """Takes an applied attempt back; needs no permit."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import RollBackAttemptRequest

        name = f"attempts/{await id_lookup.attempt(plane, attempt)}"
        request = RollBackAttemptRequest(name=name, request_id=new_id(), reason=reason)
        answer = await plane.patcher.RollBackAttempt(request, timeout=TIMEOUT)
        typer.echo(f"attempt {id_lookup.short(name)} is {answer.attempt.state}")

    run(work)


@app.command()
def cancel(attempt: AttemptName, reason: Reason) -> None:
    """Stops an attempt that has no permit yet."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.patcher_pb2 import CancelAttemptRequest

        name = f"attempts/{await id_lookup.attempt(plane, attempt)}"
        request = CancelAttemptRequest(name=name, request_id=new_id(), reason=reason)
        answer = await plane.patcher.CancelAttempt(request, timeout=TIMEOUT)
        typer.echo(f"attempt {id_lookup.short(name)} is {answer.attempt.state}")

    run(work)


def _row(attempt: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Action

    waits = f"waits for {attempt.held_by}" if attempt.held_by else attempt.reason
    return (
        id_lookup.short(attempt.name),
        safe(labels.get(attempt.plugin, "")),
        safe(formatting.action_summary(attempt, Action)),
        coloured(attempt.state),
        str(attempt.round),
        formatting.ago(attempt.create_time, now),
        formatting.elapsed(attempt.create_time, attempt.end_time),
        safe(waits),
    )


def _fields(attempt: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    from prunella.v1.events_pb2 import Action

    now = datetime.now(UTC)
    staging = attempt.staging if attempt.HasField("staging") else None
    verdict = attempt.verdict if attempt.HasField("verdict") else None
    return [
        ("attempt", attempt.name.rpartition("/")[2]),
        ("plugin", safe(f"{labels.get(attempt.plugin, '')} ({attempt.plugin})")),
        ("incident", f"{attempt.incident} (round {attempt.round})"),
        ("decision", f"{attempt.decision} (confidence {attempt.confidence:.2f})"),
        ("remedy", safe(f"{attempt.package}: {formatting.action_summary(attempt, Action)}")),
        ("state", coloured(attempt.state)),
        ("why", safe(attempt.reason)),
        ("waits for", safe(attempt.held_by)),
        ("staging", safe(_staging(staging)) if staging else ""),
        ("verdict", safe(f"{verdict.result}: {verdict.explanation}") if verdict else ""),
        ("permit", "given" if attempt.permitted else "none"),
        ("generation", str(attempt.generation or "")),
        ("began", formatting.ago(attempt.create_time, now)),
        ("took", formatting.elapsed(attempt.create_time, attempt.end_time).removeprefix(formatting.NO_VALUE)),
        ("trace", attempt.trace_id),
    ]


def _staging(staging: Any) -> str:
    took = formatting.duration(staging.duration.ToTimedelta().total_seconds())
    end = f"passed in {took}" if staging.passed else f"failed: {'; '.join(staging.failures)}"
    return f"{staging.tests_passed}/{staging.tests_run} tests {end}{' (from an earlier run)' if staging.cached else ''}"


def _show_steps(attempt: Any) -> None:
    rows = [
        (
            formatting.elapsed(attempt.create_time, step.time),
            coloured(step.from_state or "—"),
            coloured(step.to_state),
            safe(step.observation),
            safe(step.reason),
        )
        for step in attempt.history
    ]
    show_table(("after", "from", "to", "seen", "why"), rows, empty="no steps yet")
