"""`prunella decisions`: what was chosen, how surely, and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cli import formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.command_shapes import run_list
from cli.options import DecisionName, IncidentFor, Json, Limit, PluginFor, Watch
from cli.output import coloured, plain, safe, show_fields, show_json, show_table, show_text
from cli.plane_client import run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("What was chosen, how surely, and why.")

COLUMNS = ("decision", "plugin", "?incident", "?round", "remedy", "sure", "?origin", "?decided", "because")


@app.command("list")
def list_(
    incident: IncidentFor = "", plugin: PluginFor = "", limit: Limit = 50, watch: Watch = False, json: Json = False
) -> None:
    """Decisions, newest first."""
    run_list(
        listings.decisions, limit, COLUMNS, _row, empty="no decision", json=json, watch=watch, labelled=True,
        incident=incident, plugin=plugin,
    )  # fmt: skip


@app.command()
def show(decision: DecisionName, json: Json = False) -> None:
    """One decision with every candidate, in words."""

    async def work(plane: PlaneClient) -> None:
        name = await id_lookup.resource(plane, "decisions", decision)
        answer = await plane.call("decider.ExplainDecision", name=name)
        if json:
            show_json(plain(answer.decision))
            return
        show_fields(_fields(answer.decision, await id_lookup.labels(plane, [answer.decision.plugin])))
        _show_candidates(answer.decision)
        for sentence in answer.reasoning:
            show_text(f"· {sentence}")

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
