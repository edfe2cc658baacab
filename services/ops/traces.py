"""Traces: whether the story of a healing is told without a hole.

Rule: a healing's trace is complete when ingest, decider, patcher and the agent all took part and every span's parent is
here; that of an error report, which tools or people end, when queue did. Long stories continue in linked traces; a span
there may have its parent in any trace of the story. What is missing is said in words, since "incomplete" alone helps
nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

INVOLVED = ("ingest", "decider", "patcher", "agent")
# The side road: the span an error report's trace begins with, and who is always in it.
REPORTED = "error reported"
INVOLVED_IN_REPORT = ("queue",)
SHOWN = 20  # orphans named one by one; more are counted


@dataclass(frozen=True, slots=True)
class Span:
    """One step; ids are lower-case hex, times aware."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    start: datetime
    end: datetime
    error: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()


def ordered(spans: Sequence[Span]) -> list[Span]:
    """By start; a parent that started at the same moment comes before its children."""
    depths = _depths(spans)
    return sorted(spans, key=lambda span: (span.start, depths[span.id], span.id))


def missing(spans: Sequence[Span]) -> list[str]:
    """What keeps the trace from being complete, in words; empty when it is."""
    if not spans:
        return ["no span of this trace has arrived"]
    services = {span.service for span in spans}
    report = any(span.service == "queue" and span.name == REPORTED for span in spans)
    involved = INVOLVED_IN_REPORT if report else INVOLVED
    lines = [f"{service} took no part" for service in involved if service not in services]
    here = {span.id for span in spans}
    orphans = [span for span in ordered(spans) if span.parent and span.parent not in here]
    lines += [f"the parent of {span.service} “{span.name}” ({span.parent}) is not here" for span in orphans[:SHOWN]]
    if len(orphans) > SHOWN:
        lines.append(f"{len(orphans) - SHOWN} more parents are not here")
    return lines


def _depths(spans: Sequence[Span]) -> dict[str, int]:
    parents = {span.id: span.parent for span in spans}
    depths: dict[str, int] = {}
    for span in spans:
        path: list[str] = []
        current = span.id
        # Foreign spans may name each other as parents; a step seen twice ends the walk.
        while current in parents and current not in depths and current not in path:
            path.append(current)
            current = parents[current]
        depth = depths.get(current, -1)
        for step in reversed(path):
            depth += 1
            depths[step] = depth
    return depths
