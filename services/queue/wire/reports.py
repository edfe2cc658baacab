"""Error reports: what strangers report, checked field by field; what callers see.

Rule: one bad error is refused with its field, reason and remedy and does not hold up the rest. Text is kept as it
came, but for what cannot be stored or shown, which is replaced, and what is too long: the middle is left out and
marked. Nothing here looks for meaning in a text. When an error occurred is told by our clock and by how old the
reporter says it is, since no wall clock of a reporter is relied on; that one is only shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from libs.common import names
from libs.common.errors import Invalid
from libs.common.text import clean_text
from libs.common.timestamps import length, moment
from prunella.v1 import queue_pb2 as pb
from prunella_agent.fingerprint import fingerprint
from services.queue.recurrence import CounterValue, merge_counters
from services.queue.report import SEVERITIES
from services.queue.store.reports import Filters, Occurrence
from services.queue.wire.enums import below_severity, filter_text, report_state_name, report_state_value, severity_value

MOST_ERRORS = 1000
MOST_CONTEXT = 32
LONGEST_COUNTER = 200
LONGEST_TYPE = 200
LONGEST_MODULE = 200
LONGEST_MESSAGE = 8 * 1024
LONGEST_STACK = 64 * 1024
LONGEST_KEY = 100
LONGEST_VALUE = 1000
MOST_OCCURRENCES = 1_000_000_000
NO_AGE = timedelta(0)
LONGEST_AGE = timedelta(days=30)
SOURCES = ("agent", "service", "http")
INGEST = "ingest"
MARK = "\n… {left} characters left out …\n"


@dataclass(frozen=True)
class Refusal:
    """Why one error was not taken."""

    reason: str
    field: str
    message: str


def occurrence(reported: pb.ReportedError, id_: str, traceparent: str, now: datetime) -> Occurrence | Refusal:
    """One error as it is counted, or why it is refused."""
    error = reported.error
    invalid = _invalid(reported)
    if invalid:
        return invalid
    try:
        age = length(error.age, "age")
        reported_time = moment(error.time, "time") if error.HasField("time") else None
    except Invalid as problem:
        return Refusal(problem.reason, problem.field, problem.message)
    type_ = clean_text(error.type, LONGEST_TYPE)
    message = _text(error.message, LONGEST_MESSAGE)
    stack = _text(error.stack, LONGEST_STACK)
    grouped = fingerprint(reported.package, type_, message, stack)
    return Occurrence(
        id=id_,
        plugin=reported.plugin,
        merchant=reported.merchant,
        package=reported.package,
        release=reported.release,
        label=reported.label.removeprefix("plugins/"),
        fingerprint=grouped.digest,
        grouping=grouped.parts,
        type=type_,
        severity=error.severity.lower(),
        module=clean_text(error.module, LONGEST_MODULE),
        message=message,
        stack=stack,
        context=_context(reported),
        counter=clean_text(error.id, LONGEST_COUNTER),
        value=error.occurrences or 1,
        seen=now - min(max(age, NO_AGE), LONGEST_AGE),
        reported_time=reported_time,
        traceparent=traceparent,
    )


def not_owned(reported: pb.ReportedError, caller: str) -> Refusal | None:
    """Why this caller may not report this error: ingest and operators alone may say whose it is."""
    if (
        not (reported.plugin or reported.label or reported.merchant)
        or caller == INGEST
        or caller.startswith(names.operator(""))
    ):
        return None
    return Refusal(
        "NOT_ITS_OWN",
        "plugin",
        f"{caller} may report its own errors only; leave plugin, label and merchant empty, or have ingest report it",
    )


def _invalid(reported: pb.ReportedError) -> Refusal | None:
    error = reported.error
    for field in ("plugin", "merchant", "package", "release"):
        value = getattr(reported, field)
        if value and not names.is_id(value):
            return Refusal("BAD_NAME", field, f"{field} must be an id of letters, digits and ._+-, at most 128 long")
    if reported.label and not names.is_id(reported.label.removeprefix("plugins/")):
        return Refusal("BAD_NAME", "label", "label must be plugins/{label}")
    if not _says(error.type) and not _says(error.message):
        return Refusal("EMPTY_ERROR", "error", "give the error's type or its message; without both it says nothing")
    if error.severity and error.severity.lower() not in SEVERITIES:
        words = ", ".join(SEVERITIES)
        return Refusal("BAD_SEVERITY", "severity", f"severity must be one of {words}, or empty")
    if not 0 <= error.occurrences <= MOST_OCCURRENCES:
        return Refusal("BAD_OCCURRENCES", "occurrences", f"occurrences must be 0 to {MOST_OCCURRENCES}; 0 means 1")
    return None


def _says(text: str) -> bool:
    """Whether anything is left of a text that people could read."""
    return bool(clean_text(text).strip("\N{REPLACEMENT CHARACTER} \n\t"))


def _context(reported: pb.ReportedError) -> dict[str, str]:
    error = reported.error
    own = {"page_url": error.page_url, "user_action": error.user_action, "session": error.session}
    fields = {**{key: value for key, value in own.items() if value}, **dict(sorted(error.context.items()))}
    limited = list(fields.items())[:MOST_CONTEXT]
    return {clean_text(key, LONGEST_KEY): _text(value, LONGEST_VALUE) for key, value in limited}


def _text(text: str, longest: int) -> str:
    """Cleaned; when too long, both ends and how much is missing between them."""
    text = clean_text(text)
    if len(text) <= longest:
        return text
    mark = MARK.format(left=len(text) - longest)
    half = (longest - len(mark)) // 2
    return text[:half] + mark + text[-half:]


def upsert_batches(accepted: Sequence[Occurrence]) -> list[list[Occurrence]]:
    """Occurrences by kind, ready for upserts that hold each kind once: several counters of a kind need several."""
    error_types: dict[tuple[str, str], list[Occurrence]] = {}
    for one in accepted:
        error_types.setdefault((one.plugin, one.fingerprint), []).append(one)
    found: list[list[Occurrence]] = []
    for same in error_types.values():
        newest = max(one.seen for one in same)
        reported_time = next((one.reported_time for one in reversed(same) if one.reported_time), None)
        for number, count in enumerate(merge_counters(CounterValue(one.counter, one.value) for one in same)):
            if number == len(found):
                found.append([])
            merged = replace(
                same[0], counter=count.counter, value=count.value, seen=newest, reported_time=reported_time
            )
            found[number].append(merged)
    return found


def source(request: pb.ReportErrorsRequest) -> str:
    """Where errors came from. Raises Invalid for a word that is not one of three, or for too many errors."""
    if len(request.errors) > MOST_ERRORS:
        raise Invalid(
            f"errors may hold {MOST_ERRORS}, there are {len(request.errors)}; send the rest in another request",
            reason="TOO_MANY_ERRORS",
            field="errors",
        )
    if request.source and request.source not in SOURCES:
        raise Invalid(f"source must be one of {', '.join(SOURCES)}", reason="BAD_SOURCE", field="source")
    return request.source or "service"


def filters(request: pb.ListErrorReportsRequest) -> Filters:
    """What a list is asked for. Raises Invalid naming the field."""
    return Filters(
        plugin=filter_text("plugin", request.plugin.removeprefix("plugins/")),
        state=report_state_name(request.state),
        type=filter_text("type", request.type),
        fingerprint=filter_text("fingerprint", request.fingerprint),
        below_severity=below_severity(request.min_severity),
        include_merged=request.include_merged,
    )


def resource(row: Any) -> pb.ErrorReportGroup:
    """A report as callers see it."""
    proto = pb.ErrorReportGroup(
        name=f"errorReports/{row.id}",
        plugin=row.plugin,
        label=row.label,
        merchant=row.merchant,
        package=row.package,
        release=row.release,
        fingerprint=row.fingerprint,
        state=report_state_value(row.state),
        type=row.type,
        severity=severity_value(row.severity or row.reported_severity),
        module=row.module,
        message=row.message,
        stack=row.stack,
        context=row.context,
        occurrences=row.occurrences,
        regressions=row.regressions,
        task=f"tasks/{row.task}" if row.task else "",
        reason=row.reason,
        trace_id=row.traceparent[3:35],
        source=row.source,
        merged_into=f"errorReports/{row.merged_into}" if row.merged_into else "",
    )
    proto.first_seen_time.FromDatetime(row.first_seen_time)
    proto.last_seen_time.FromDatetime(row.last_seen_time)
    if row.reported_time is not None:
        proto.reported_time.FromDatetime(row.reported_time)
    if row.triage:
        proto.triage.CopyFrom(triage(row.triage))
    if row.state in ("resolved_pending", "resolved", "closed") and row.resolve_time:
        proto.resolve_time.FromDatetime(row.resolve_time)
        proto.resolved_by = row.resolved_by
        proto.resolution_method = row.resolution_method
    return proto


def triage(stored: dict[str, Any]) -> pb.Triage:
    """A stored triage as callers see it."""
    proto = pb.Triage(
        type=stored["type"],
        severity=severity_value(stored["severity"]),
        auto_fixable=stored["auto_fixable"],
        confidence=stored["confidence"],
        origin=stored["origin"],
        tools=stored["tools"],
        explanation=stored["explanation"],
        strategy=f"strategies/{stored['strategy']}" if stored["strategy"] else "",
    )
    proto.estimated_duration.FromMilliseconds(round(stored["estimated_seconds"] * 1000))
    proto.create_time.FromDatetime(datetime.fromisoformat(stored["time"]))
    return proto


def entry(row: Any) -> pb.ResolutionEntry:
    """A line of history as callers see it."""
    proto = pb.ResolutionEntry(
        number=row.number,
        task=f"tasks/{row.task}" if row.task else "",
        strategy=f"strategies/{row.strategy}" if row.strategy else "",
        worker=row.worker,
        method=row.method,
        success=row.success,
        outcome=row.outcome,
        details=row.details,
        tools_used=row.tools,
        actor=row.actor,
    )
    proto.duration.FromMilliseconds(round(row.seconds * 1000))
    proto.create_time.FromDatetime(row.create_time)
    return proto
