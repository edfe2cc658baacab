"""`prunella incidents`: what is or was wrong, and what became of it."""

from __future__ import annotations

import os
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
from cli.plane_client import TIMEOUT, run
from cli.timeline import story

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What is or was wrong with plugins.")

IncidentName = Annotated[
    str, typer.Argument(help="Id of the incident, or a unique part of it.", autocompletion=completion.incident)
]
Operator = Annotated[str, typer.Argument(help="A person's name, `me` or `nobody`.")]
Text = Annotated[str, typer.Argument(help="What there is to say, up to 4,000 characters.")]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only of this plugin: label or id.", autocompletion=completion.plugin)
]
State = Annotated[str, typer.Option("--state", help="Only open, in_progress, mitigated, closed or escalated.")]
Kind = Annotated[str, typer.Option("--type", help="Only of this type, such as webhook_fail_rate.")]
Sev = Annotated[str, typer.Option("--severity", help="Only low, medium, high or critical.")]


@app.command("list")
def list_(
    plugin: Plugin = "",
    state: State = "",
    kind: Kind = "",
    severity: Sev = "",
    limit: Limit = 50,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Incidents, newest first."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1 import events_pb2

        id_ = await id_lookup.optional_plugin(plane, plugin)
        wanted = formatting.enum_value(events_pb2.Severity, severity, "--severity")
        entries = listings.incidents(plane, limit, plugin=id_, state=state, type=kind, severity=wanted)
        if json:
            await show_json_list(entries)
            return
        found = [entry async for entry in entries]
        labels = await id_lookup.labels(plane, (entry.plugin for entry in found))
        now = datetime.now(UTC)
        columns = ("incident", "plugin", "type", "?severity", "state", "?round", "?opened", "?took", "evidence")
        show_table(columns, (_row(entry, labels, now) for entry in found), empty="no incident")

    run(work, watch=watch)


@app.command()
def show(incident: IncidentName, json: Json = False) -> None:
    """One incident and its story."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.ingest_pb2 import GetIncidentRequest

        id_ = await id_lookup.incident(plane, incident)
        found = (await plane.ingest.GetIncident(GetIncidentRequest(name=f"incidents/{id_}"), timeout=TIMEOUT)).incident
        if json:
            show_json(plain(found))
            return
        labels = await id_lookup.labels(plane, [found.plugin])
        show_fields(_fields(found, labels))
        typer.echo()
        await story(plane, id_)
        typer.echo(f"\nits trace: prunella trace {id_lookup.short(id_)}")

    run(work)


@app.command()
def close(incident: IncidentName, reason: Reason) -> None:
    """Closes an incident by hand."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.ingest_pb2 import CloseIncidentRequest

        name = f"incidents/{await id_lookup.incident(plane, incident)}"
        request = CloseIncidentRequest(name=name, request_id=new_id(), reason=reason)
        answer = await plane.ingest.CloseIncident(request, timeout=TIMEOUT)
        typer.echo(f"incident {id_lookup.short(name)} is {answer.incident.state}")

    run(work)


@app.command()
def escalate(incident: IncidentName, reason: Reason) -> None:
    """Hands an incident to a person; automation leaves it alone from then on."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.ingest_pb2 import EscalateIncidentRequest

        name = f"incidents/{await id_lookup.incident(plane, incident)}"
        request = EscalateIncidentRequest(name=name, request_id=new_id(), reason=reason)
        answer = await plane.ingest.EscalateIncident(request, timeout=TIMEOUT)
        typer.echo(f"incident {id_lookup.short(name)} is {answer.incident.state}")

    run(work)


@app.command()
def assign(incident: IncidentName, operator: Operator, reason: Reason) -> None:
    """Gives an incident to a person: a name, `me`, or `nobody`."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.annotations_pb2 import AssignIncidentRequest

        name = f"incidents/{await id_lookup.incident(plane, incident)}"
        assignee = {"nobody": "", "me": os.environ.get("PRUNELLA_OPERATOR") or "local"}.get(operator, operator)
        request = AssignIncidentRequest(name=name, assignee=assignee, reason=reason, request_id=new_id())
        answer = await plane.ops.AssignIncident(request, timeout=TIMEOUT)
        who = answer.annotations.assignee.rpartition("/")[2] or "nobody"
        typer.echo(f"{safe(who)} takes care of incident {id_lookup.short(name)}")

    run(work)


@app.command()
def comment(incident: IncidentName, text: Text) -> None:
    """Says something about an incident; it stands on the timeline and in its story."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.annotations_pb2 import CommentOnIncidentRequest

        name = f"incidents/{await id_lookup.incident(plane, incident)}"
        request = CommentOnIncidentRequest(name=name, text=text, request_id=new_id())
        answer = await plane.ops.CommentOnIncident(request, timeout=TIMEOUT)
        typer.echo(f"noted at incident {id_lookup.short(name)}, comment {len(answer.annotations.comments)}")

    run(work)


def _row(incident: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Severity

    return (
        id_lookup.short(incident.name),
        safe(labels.get(incident.plugin, "")),
        safe(incident.type),
        coloured(formatting.enum_label(Severity, incident.severity)),
        coloured(incident.state),
        str(incident.round),
        formatting.ago(incident.open_time, now),
        formatting.elapsed(incident.open_time, incident.end_time),
        safe(incident.evidence.summary),
    )


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
        ("tried", safe("; ".join(tried))),
        ("act by", formatting.ago(incident.act_by_time, now).removeprefix(formatting.NO_VALUE)),
        ("resolution", safe(incident.resolution)),
        ("trace", incident.trace_id),
    ]
