"""`prunella decisions`: what was chosen, how surely, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import Json, Limit, Watch, coloured, plain, safe, show_fields, show_json, show_json_list, show_table
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What was chosen, how surely, and why.")

DecisionName = Annotated[
    str, typer.Argument(help="Id of the decision, or a unique part of it.", autocompletion=completion.decision)
]
Incident = Annotated[
    str, typer.Option("--incident", "-i", help="Only for this incident.", autocompletion=completion.incident)
]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only for this plugin: label or id.", autocompletion=completion.plugin)
]


@app.command("list")
def list_(
    incident: Incident = "", plugin: Plugin = "", limit: Limit = 50, watch: Watch = False, json: Json = False
) -> None:
    """Decisions, newest first."""

    async def work(plane: PlaneClient) -> None:
        filters = {
            "incident": await id_lookup.incident(plane, incident) if incident else "",
            "plugin": await id_lookup.optional_plugin(plane, plugin),
        }
        entries = listings.decisions(plane, limit, **filters)
        if json:
            await show_json_list(entries)
            return
        found = [entry async for entry in entries]
        labels = await id_lookup.labels(plane, (entry.plugin for entry in found))
        now = datetime.now(UTC)
        columns = ("decision", "plugin", "?incident", "?round", "remedy", "sure", "?origin", "?decided", "because")
        show_table(columns, (_row(entry, labels, now) for entry in found), empty="no decision")

    run(work, watch=watch)


@app.command()
def show(decision: DecisionName, json: Json = False) -> None:
    """One decision with every candidate, in words."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.decider_pb2 import ExplainDecisionRequest

        id_ = await id_lookup.decision(plane, decision)
        request = ExplainDecisionRequest(name=f"decisions/{id_}")
        answer = await plane.decider.ExplainDecision(request, timeout=TIMEOUT)
        if json:
            show_json(plain(answer.decision))
            return
        labels = await id_lookup.labels(plane, [answer.decision.plugin])
        show_fields(_fields(answer.decision, labels))
        _show_candidates(answer.decision)
        for sentence in answer.reasoning:
            typer.echo(f"· {sentence}")

    run(work)


def _row(decision: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Action

    made = decision.state != "pending"
    return (
        id_lookup.short(decision.name),
        safe(labels.get(decision.plugin, "")),
        id_lookup.short(decision.incident),
        str(decision.round),
        safe(formatting.action_summary(decision, Action)) if made else coloured("pending"),
        f"{decision.confidence:.2f}" if made else formatting.NO_VALUE,
        safe(decision.origin),
        formatting.ago(decision.decide_time, now),
        # The remedy and how sure it is have columns of their own.
        safe(decision.explanation.partition(", because ")[2] or decision.explanation),
    )


def _fields(decision: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    from prunella.v1.events_pb2 import Action

    return [
        ("decision", decision.name.rpartition("/")[2]),
        ("plugin", safe(labels.get(decision.plugin, ""))),
        ("incident", f"{decision.incident} (round {decision.round})"),
        ("state", coloured(decision.state)),
        ("remedy", safe(formatting.action_summary(decision, Action))),
        ("confidence", f"{decision.confidence:.2f}, chosen with probability {decision.propensity:.2f}"),
        ("origin", safe(decision.origin)),
        ("versions", safe(", ".join(f"{key} {value}" for key, value in sorted(decision.versions.items())))),
        ("trace", decision.trace_id),
    ]


def _show_candidates(decision: Any) -> None:
    from prunella.v1.events_pb2 import Action

    rows = [
        (
            safe(formatting.action_summary(candidate, Action)),
            safe(candidate.origin),
            f"{candidate.score:.2f}",
            f"{candidate.confidence:.2f}",
            f"{candidate.propensity:.2f}",
            safe(f"not eligible: {candidate.excluded}" if candidate.excluded else candidate.explanation),
        )
        for candidate in decision.candidates
    ]
    show_table(("candidate", "origin", "score", "sure", "chance", "because"), rows, empty="no candidates")
