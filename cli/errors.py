"""`prunella errors`: kinds of errors that plugins met, what they were taken for, and what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import error_merges, formatting, id_lookup, listings, options
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.merged_kinds import show_merged_kinds
from cli.options import Json, Limit, PluginOn, Reason, ReportName, Watch
from cli.output import coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import FAILED, fail, run
from cli.task_history import show_task_history

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Errors that plugins met, and what became of them.")
for command in (error_merges.merge, error_merges.split, error_merges.similar):
    app.command()(command)

# Seconds between when an error occurred and when it was told that are nothing unusual.
SKEW_SHOWN = 300
COLUMNS = ("error", "plugin", "type", "?severity", "state", "times", "?last seen", "?strategy", "message")
STATES = "new, triaging, in_progress, resolved_pending, resolved, escalated or closed"
State = Annotated[str, typer.Option("--state", help=f"Only {STATES}.")]
Kind = Annotated[str, typer.Option("--type", help="Only of this type, such as timeout.")]
MinSeverity = Annotated[str, typer.Option("--severity", help="At least low, medium, high or critical.")]
Fingerprint = Annotated[str, typer.Option("--fingerprint", help="Only with this fingerprint.")]
Message = Annotated[str, typer.Argument(help="What the error said.")]
Reported = Annotated[str, typer.Option("--type", help="What the reporter calls it, such as TimeoutError.")]
Affected = Annotated[str, options.plugin("Whom it happened to: label or id.")]
Stack = Annotated[
    typer.FileText | None, typer.Option("--stack", help="File with the stack trace; - for standard input.")
]
Module = Annotated[str, typer.Option("--module", help="Where it happened.")]
Severity = Annotated[str, typer.Option("--severity", help="low, medium, high or critical.")]
Context = Annotated[list[str] | None, typer.Option("--context", help="name=value; repeatable.")]


@app.command("list")
def list_(
    plugin: PluginOn = "", state: State = "", kind: Kind = "", severity: MinSeverity = "",
    fingerprint: Fingerprint = "", limit: Limit = 50, watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Kinds of errors, last seen first."""
    from prunella.v1.queue_pb2 import ReportState

    run_list(
        listings.reports, limit, COLUMNS, _row, empty="no error report", json=json, watch=watch, labelled=True,
        plugin=plugin, state=formatting.enum_value(ReportState, state, "--state"), type=kind,
        min_severity=formatting.severity_value(severity), fingerprint=fingerprint, after=_similar,
    )  # fmt: skip


@app.command()
def show(report: ReportName, json: Json = False) -> None:
    """One kind of error on one plugin, and everything that was tried."""
    run_show("queue.GetErrorReport", "errorReports", report, _show, json=json)


@app.command()
def explain(report: ReportName, json: Json = False) -> None:
    """Why its occurrences are one, what it was taken for, and which strategies fit how well."""
    run_show("queue.ExplainErrorReport", "errorReports", report, _explain, json=json)


@app.command()
def report(
    message: Message, kind: Reported = "", plugin: Affected = "", stack: Stack = None, module: Module = "",
    severity: Severity = "", context: Context = None, json: Json = False,
) -> None:  # fmt: skip
    """Reports an error, as a trusted service would."""

    async def work(plane: PlaneClient) -> None:
        from google.protobuf.timestamp_pb2 import Timestamp

        from libs.common.names import new_id
        from prunella.v1.agent_pb2 import ErrorReport
        from prunella.v1.queue_pb2 import ReportedError

        formatting.severity_value(severity)
        text = stack.read() if stack else ""
        time = Timestamp()
        time.GetCurrentTime()
        error = ErrorReport(id=new_id(), type=kind, message=message, stack=text, context=_context(context or []),
                            time=time, occurrences=1, severity=severity, module=module)  # fmt: skip
        reported = ReportedError(error=error, **await _owner(plane, plugin))
        (outcome,) = (await plane.call("queue.ReportErrors", errors=[reported], source="service")).outcomes
        if json:
            show_json(plain(outcome))
        if outcome.refusal:
            fail(f"{outcome.field}: {outcome.message}" if outcome.field else outcome.message, FAILED)
        if not json:
            known = "came back" if outcome.regression else "is new" if outcome.created else "was known and counts more"
            short = id_lookup.short(outcome.report)
            typer.echo(f"error {short} {known}; see: prunella errors show {short}")

    run(work)


@app.command()
def close(report: ReportName, reason: Reason) -> None:
    """Ends an error report without a tool."""
    run_change("queue.CloseErrorReport", "errorReports", report, _state, field="report", reason=reason)


def _state(report: Any) -> str:
    from prunella.v1.queue_pb2 import ReportState

    return f"error {id_lookup.short(report.name)} is {formatting.enum_label(ReportState, report.state)}"


async def _similar(plane: PlaneClient) -> None:
    """Says that some errors could be one."""
    found = len((await plane.call("queue.ListMergeSuggestions", page_size=100)).suggestions)
    if found:
        groups = "1 group of errors says" if found == 1 else f"{found} groups of errors say"
        typer.echo(f"{groups} nearly the same; see: prunella errors similar", err=True)


async def _show(plane: PlaneClient, answer: Any) -> None:
    show_fields(_fields(answer.report, await id_lookup.labels(plane, [answer.report.plugin])))
    show_task_history(answer.history)
    show_merged_kinds(answer.merged_kinds)
    short = id_lookup.short(answer.report.name)
    typer.echo(f"\nwhy it was taken for that: prunella errors explain {short}; its trace: prunella trace {short}")


async def _explain(_plane: PlaneClient, answer: Any) -> None:
    typer.echo("occurrences are one when they share:")
    for line in answer.grouping:
        typer.echo(f"  {safe(line)}")
    show_fields([("taken for", _triage(answer.triage))])
    columns = ("strategy", "fits", "would run", "sure", "why")
    show_table(columns, (_fit(one) for one in answer.strategies), empty="no strategy fits; a person is asked")


def _context(pairs: list[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not name=value", param_hint="--context")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


async def _owner(plane: PlaneClient, typed: str) -> dict[str, str]:
    """Whom an error happened to, as a ReportedError says it; empty for the plane itself."""
    if not typed:
        return {}
    id_ = await id_lookup.plugin(plane, typed)
    found = (await plane.call("ingest.GetPlugin", name=f"plugins/{id_}")).plugin
    owner = {"merchant": found.merchant, "package": found.package, "release": found.release, "label": found.label}
    return {"plugin": id_, **owner}


def _row(report: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.events_pb2 import Severity
    from prunella.v1.queue_pb2 import ReportState

    return (
        id_lookup.short(report.name),
        safe(labels.get(report.plugin, formatting.NO_VALUE)),
        safe(report.triage.type or report.type),
        coloured(formatting.enum_label(Severity, report.severity)),
        coloured(formatting.enum_label(ReportState, report.state)),
        f"{report.occurrences}{f' ({report.regressions} back)' if report.regressions else ''}",
        formatting.ago(report.last_seen_time, now),
        safe(report.triage.strategy.rpartition("/")[2] or formatting.NO_VALUE),
        safe(report.message),
    )


def _triage(triage: Any) -> str:
    if not triage.origin:
        return "not understood yet"
    fixable = "tools may heal it" if triage.auto_fixable else "not for tools"
    return safe(
        f"{triage.type}, {fixable}, confidence {triage.confidence:.2f} by {triage.origin}: {triage.explanation}"
    )


def _fields(report: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    from prunella.v1.events_pb2 import Severity
    from prunella.v1.queue_pb2 import ReportState

    now = datetime.now(UTC)
    runs = f"{report.package} {report.release}".strip()
    return [
        ("error", report.name.rpartition("/")[2]),
        ("plugin", safe(f"{labels.get(report.plugin, '')} ({report.plugin})") if report.plugin else ""),
        ("runs", safe(runs)),
        ("state", coloured(formatting.enum_label(ReportState, report.state))),
        ("why", safe(report.reason)),
        ("merged into", safe(report.merged_into.rpartition("/")[2])),
        ("type", safe(report.type)),
        ("severity", coloured(formatting.enum_label(Severity, report.severity))),
        ("message", safe(report.message)),
        ("module", safe(report.module)),
        ("context", safe(", ".join(f"{key}={value}" for key, value in sorted(report.context.items())))),
        ("stack", "\n".join(safe(line) for line in report.stack.splitlines())),
        ("seen", _seen(report, now)),
        ("taken for", _triage(report.triage)),
        ("strategy", safe(report.triage.strategy)),
        ("tools", safe(", ".join(report.triage.tools))),
        ("task", report.task.rpartition("/")[2]),
        ("resolved", _resolved(report, now)),
        ("told by", safe(report.source)),
        ("fingerprint", safe(report.fingerprint)),
        ("trace", safe(report.trace_id)),
    ]


def _seen(report: Any, now: datetime) -> str:
    back = f"; came back {formatting.plural(report.regressions, 'time')}" if report.regressions else ""
    last, first = formatting.ago(report.last_seen_time, now), formatting.ago(report.first_seen_time, now)
    own = (
        f"; its own clock said {formatting.to_datetime(report.reported_time):%Y-%m-%d %H:%M:%S}Z"
        if _skewed(report)
        else ""
    )
    return f"{formatting.plural(report.occurrences, 'time')}, last {last}, first {first}{own}{back}"


def _skewed(report: Any) -> bool:
    """Whether the reporter's clock disagrees with when its error arrived."""
    apart = abs(report.reported_time.seconds - report.last_seen_time.seconds)
    return bool(report.HasField("reported_time") and apart > SKEW_SHOWN)


def _resolved(report: Any, now: datetime) -> str:
    if not report.resolved_by and not report.resolution_method:
        return ""
    when = formatting.ago(report.resolve_time, now)
    return safe(f"{when} by {report.resolved_by or formatting.NO_VALUE}: {report.resolution_method}")


def _fit(one: Any) -> tuple[str, ...]:
    return (
        safe(one.strategy.name.rpartition("/")[2]),
        f"{one.score:.2f}",
        "[green]this one[/]" if one.best else "",
        f"{one.strategy.confidence:.2f}",
        safe(one.explanation),
    )
