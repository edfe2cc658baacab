"""`prunella incidents`: what is or was wrong, and what became of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.options import IncidentName, Json, Limit, PluginOf, Reason, Severity, Watch
from cli.output import coloured, safe, show_fields
from cli.timeline import story

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What is or was wrong with plugins.")

COLUMNS = ("incident", "plugin", "type", "?severity", "state", "?round", "?back", "?opened", "?took", "evidence")
Operator = Annotated[str, typer.Argument(help="A person's name, `me` or `nobody`.")]
Text = Annotated[str, typer.Argument(help="What there is to say, up to 4,000 characters.")]
State = Annotated[
    str, typer.Option("--state", help="Only open, in_progress, escalated, flapping, mitigated or closed.")
]
Kind = Annotated[str, typer.Option("--type", help="Only of this type, such as webhook_fail_rate.")]


@app.command("list")
def list_(
    plugin: PluginOf = "", state: State = "", kind: Kind = "", severity: Severity = "", limit: Limit = 50,
    watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Incidents, newest first."""
    run_list(
        listings.incidents, limit, COLUMNS, _row, empty="no incident", json=json, watch=watch, labelled=True,
        plugin=plugin, state=state, type=kind, severity=formatting.severity_value(severity),
    )  # fmt: skip


@app.command()
def show(incident: IncidentName, json: Json = False) -> None:
    """One incident and its story."""
    run_show("ingest.GetIncident", "incidents", incident, _show, field="incident", json=json)


@app.command()
def close(incident: IncidentName, reason: Reason) -> None:
    """Closes an incident by hand."""
    run_change("ingest.CloseIncident", "incidents", incident, _state, field="incident", reason=reason)


@app.command()
def escalate(incident: IncidentName, reason: Reason) -> None:
    """Hands an incident to a person; automation leaves it alone from then on."""
    run_change("ingest.EscalateIncident", "incidents", incident, _state, field="incident", reason=reason)


@app.command()
def assign(incident: IncidentName, operator: Operator, reason: Reason) -> None:
    """Gives an incident to a person: a name, `me`, or `nobody`."""
    assignee = {"nobody": "", "me": os.environ.get("PRUNELLA_OPERATOR") or "local"}.get(operator, operator)
    run_change(
        "ops.AssignIncident", "incidents", incident, _assigned, field="annotations", assignee=assignee, reason=reason
    )


@app.command()
def comment(incident: IncidentName, text: Text) -> None:
    """Says something about an incident; it stands on the timeline and in its story."""
    run_change("ops.CommentOnIncident", "incidents", incident, _commented, field="annotations", text=text)


def _state(incident: Any) -> str:
    return f"incident {id_lookup.short(incident.name)} is {incident.state}"


def _assigned(annotations: Any) -> str:
    who = annotations.assignee.rpartition("/")[2] or "nobody"
    return f"{safe(who)} takes care of incident {id_lookup.short(annotations.incident)}"


def _commented(annotations: Any) -> str:
    return f"noted at incident {id_lookup.short(annotations.incident)}, comment {len(annotations.comments)}"


async def _show(plane: PlaneClient, incident: Any) -> None:
    show_fields(_fields(incident, await id_lookup.labels(plane, [incident.plugin])))
    typer.echo()
    await story(plane, incident.name.rpartition("/")[2])
    typer.echo(f"\nits trace: prunella trace {id_lookup.short(incident.name)}")


def _row(incident: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Severity

    return (
        id_lookup.short(incident.name),
        safe(labels.get(incident.plugin, "")),
        safe(incident.type),
        coloured(formatting.enum_label(Severity, incident.severity)),
        coloured(incident.state),
        str(incident.round),
        str(incident.reopened or ""),
        formatting.ago(incident.open_time, now),
        formatting.elapsed(incident.open_time, incident.end_time),
        safe(incident.evidence.summary),
    )


def _came_back(incident: Any, now: datetime) -> str:
    if not incident.reopened:
        return ""
    last = formatting.ago(incident.reopen_time, now)
    return f"{formatting.plural(incident.reopened, 'time')}, last {last}"


def _fields(incident: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    from prunella.v1.events_pb2 import Action, Severity

    now = datetime.now(UTC)
    tried = (
        f"{formatting.action_summary(entry, Action)}: {entry.outcome} ({entry.reason})" for entry in incident.tried
    )
    return [
        ("incident", incident.name.rpartition("/")[2]),
        ("plugin", safe(f"{labels.get(incident.plugin, '')} ({incident.plugin})")),
        ("type", safe(f"{incident.type} on {incident.package} {incident.release}")),
        ("severity", coloured(formatting.enum_label(Severity, incident.severity))),
        ("state", coloured(incident.state)),
        ("evidence", safe(incident.evidence.summary)),
        ("opened", formatting.ago(incident.open_time, now)),
        ("took", formatting.elapsed(incident.open_time, incident.end_time).removeprefix(formatting.NO_VALUE)),
        ("round", str(incident.round)),
        ("came back", _came_back(incident, now)),
        ("tried", safe("; ".join(tried))),
        ("act by", formatting.ago(incident.act_by_time, now).removeprefix(formatting.NO_VALUE)),
        ("resolution", safe(incident.resolution)),
        ("trace", incident.trace_id),
    ]
