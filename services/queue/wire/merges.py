"""Merges of reports: what people ask for, checked; what they see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.common.errors import Invalid, Problem
from prunella.v1 import queue_pb2 as pb
from services.queue.similarity import Candidate, Suggestion
from services.queue.wire.enums import filter_text
from services.queue.wire.tasks import NOTHING, id_of

COLLECTION = "errorReports"
MOST_NAMES = 100
MOST_SUGGESTIONS = 100
MESSAGE = "message "


def names(request: pb.MergeErrorReportsRequest) -> tuple[dict[str, str], list[pb.MergeRefusal]]:
    """The reports to merge by id, and the names that are none. Raises Invalid when there are none or too many."""
    if not 1 <= len(request.names) <= MOST_NAMES:
        raise Invalid(f"names must hold 1 to {MOST_NAMES} reports", reason="BAD_NAMES", field="names")
    asked: dict[str, str] = {}
    refused = []
    for name in request.names:
        try:
            report = id_of(COLLECTION, name, field="names")
        except Invalid as problem:
            refused.append(pb.MergeRefusal(name=name[:200], reason=problem.reason, message=problem.message))
            continue
        if report == NOTHING:
            unknown = f"there is no report {name[:80]}"
            refused.append(pb.MergeRefusal(name=name[:200], reason="REPORT_UNKNOWN", message=unknown))
        else:
            asked.setdefault(report, name)
    return asked, refused


def into(request: pb.MergeErrorReportsRequest) -> str:
    """The report that stays. Raises Invalid."""
    return id_of(COLLECTION, request.into, field="into")


def refusals(asked: Mapping[str, str], refused: Mapping[str, Problem]) -> list[pb.MergeRefusal]:
    """What was not merged; `asked` are the names by id."""
    return [
        pb.MergeRefusal(name=asked[report], reason=problem.reason, message=problem.message)
        for report, problem in refused.items()
    ]


def merged_kind(row: Any) -> pb.MergedKind:
    """A kind that is counted in another report."""
    proto = pb.MergedKind(
        report=f"{COLLECTION}/{row.report}" if row.report else "",
        fingerprint=row.fingerprint,
        type=row.type,
        message=row.message,
        release=row.release,
        occurrences=row.occurrences,
    )
    proto.last_seen_time.FromDatetime(row.last_seen_time)
    return proto


def suggestions_filter(request: pb.ListMergeSuggestionsRequest) -> tuple[str, int]:
    """Plugin and number. Raises Invalid naming the field."""
    if not 0 <= request.page_size <= MOST_SUGGESTIONS:
        raise Invalid(
            f"page_size must be 1 to {MOST_SUGGESTIONS}, or 0 for 20", reason="BAD_PAGE_SIZE", field="page_size"
        )
    return filter_text("plugin", request.plugin.removeprefix("plugins/")), request.page_size or 20


def candidate(row: Any) -> Candidate:
    """A report that may be like another, by its normalised message."""
    lines = [line.removeprefix(MESSAGE) for line in row.grouping if line.startswith(MESSAGE)]
    return Candidate(row.id, row.plugin, row.type, lines[0] if lines else "", row.occurrences)


def suggestion(found: Suggestion, messages: Mapping[str, str]) -> pb.MergeSuggestion:
    """A suggestion as callers see it; `messages` by report."""
    proto = pb.MergeSuggestion(
        into=f"{COLLECTION}/{found.into.id}",
        plugin=found.into.plugin,
        type=found.into.type,
        message=messages[found.into.id],
        similarity=found.similarity,
    )
    for one in found.reports:
        proto.reports.add(name=f"{COLLECTION}/{one.id}", message=messages[one.id], occurrences=one.occurrences)
    return proto
