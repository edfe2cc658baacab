"""`prunella attempts`: remedies on their way, and what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings, options
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.options import AttemptName, IncidentFor, Json, Limit, PluginOn, Reason, Watch
from cli.output import coloured, safe, show_fields, show_table
from cli.plane_client import FAILED, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Remedies on their way, and what became of them.")

COLUMNS = ("attempt", "plugin", "remedy", "state", "?round", "?began", "?took", "why")
REMEDIES = ("patch", "rollback", "restart", "config_fix")
State = Annotated[str, typer.Option("--state", help="Only in this state, such as probation or success.")]
Remedy = Annotated[str, typer.Argument(metavar="ACTION", help="patch, rollback, restart or config_fix.")]
Target = Annotated[str, typer.Argument(help="Release for a patch, configuration for a config_fix.")]
OnPlugin = Annotated[str, options.plugin("To which plugin: label or id.")]
ForIncident = Annotated[str, options.incident("To heal this incident, and its plugin.")]


@app.command("list")
def list_(
    plugin: PluginOn = "", incident: IncidentFor = "", state: State = "", limit: Limit = 50, watch: Watch = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Attempts, newest first."""
    run_list(
        listings.attempts, limit, COLUMNS, _row, empty="no attempt", json=json, watch=watch, labelled=True,
        plugin=plugin, incident=incident, state=state,
    )  # fmt: skip


@app.command()
def show(attempt: AttemptName, json: Json = False) -> None:
    """One attempt, step by step."""
    run_show("patcher.GetAttempt", "attempts", attempt, _show, field="attempt", json=json)


@app.command()
def create(
    action: Remedy, reason: Reason, target: Target = "", plugin: OnPlugin = "", incident: ForIncident = ""
) -> None:
    """Wants a remedy by hand; gates, staging, approvals of others and probation are those of any attempt."""

    async def work(plane: PlaneClient) -> int:
        if action not in REMEDIES:
            raise typer.BadParameter(f"use {', '.join(REMEDIES)}", param_hint="ACTION")
        answer = await plane.call(
            "patcher.CreateAttempt",
            plugin=await id_lookup.plugin(plane, plugin) if plugin else "",
            incident=await id_lookup.resource(plane, "incidents", incident) if incident else "",
            action=f"ACTION_{action.upper()}",
            target=target,
            reason=reason,
        )
        made = answer.attempt
        typer.echo(f"{_state(made)}{f': {safe(made.reason)}' if made.reason else ''}")
        return FAILED if made.state in {"refused", "failed", "cancelled"} else 0

    run(work)


@app.command()
def rollback(attempt: AttemptName, reason: Reason) -> None:
    """Takes an applied attempt back; needs no permit."""
    run_change("patcher.RollBackAttempt", "attempts", attempt, _state, field="attempt", reason=reason)


@app.command()
def cancel(attempt: AttemptName, reason: Reason) -> None:
    """Stops an attempt that has no permit yet."""
    run_change("patcher.CancelAttempt", "attempts", attempt, _state, field="attempt", reason=reason)


def _state(attempt: Any) -> str:
    return f"attempt {id_lookup.short(attempt.name)} is {attempt.state}"


async def _show(plane: PlaneClient, attempt: Any) -> None:
    show_fields(_fields(attempt, await id_lookup.labels(plane, [attempt.plugin])))
    _show_steps(attempt)


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
        ("evidence", ("low" if verdict.low_evidence else "full") if verdict and verdict.result == "pass" else ""),
        ("watch", safe(_watch(attempt.watch, now)) if attempt.HasField("watch") else ""),
        ("permit", "given" if attempt.permitted else "none"),
        ("generation", str(attempt.generation or "")),
        ("began", formatting.ago(attempt.create_time, now)),
        ("took", formatting.elapsed(attempt.create_time, attempt.end_time).removeprefix(formatting.NO_VALUE)),
        ("trace", attempt.trace_id),
    ]


def _watch(watch: Any, now: datetime) -> str:
    if watch.HasField("end_time"):
        return f"{watch.state} {formatting.ago(watch.end_time, now)}: {watch.reason}"
    return f"until {watch.until_time.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC: {watch.reason or 'nothing seen yet'}"


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
