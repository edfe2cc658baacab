"""Figures ⇄ protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from prunella.v1 import kpis_pb2
from services.ops.kpis import CalibrationBin, Durations, Ratio
from services.ops.wire.filters import timestamp


def ratio(found: Ratio) -> kpis_pb2.Ratio:
    """A ratio with its target."""
    return kpis_pb2.Ratio(
        numerator=found.numerator,
        denominator=found.denominator,
        value=found.value,
        target=found.target,
        met=found.met,
        exceed=found.exceed,
    )


def durations(found: Durations) -> kpis_pb2.Durations:
    """A distribution of durations with its target."""
    return kpis_pb2.Durations(
        cases=found.cases,
        mean_seconds=found.mean,
        p50_seconds=found.p50,
        p95_seconds=found.p95,
        target_seconds=found.target,
        met=found.met,
    )


def calibration(bins: Sequence[CalibrationBin]) -> list[kpis_pb2.CalibrationBin]:
    """What was predicted and what was observed, by tenths."""
    return [kpis_pb2.CalibrationBin(**asdict(one)) for one in bins]


def points(found: Mapping[datetime, Mapping[str, float]]) -> list[kpis_pb2.KpiPoint]:
    """What happened when, oldest first."""
    return [
        kpis_pb2.KpiPoint(
            time=timestamp(time),
            opened=int(point.get("opened", 0)),
            mitigated=int(point.get("mitigated", 0)),
            closed=int(point.get("closed", 0)),
            succeeded=int(point.get("attempt success", 0)),
            rolled_back=int(point.get("attempt rolled_back", 0) + point.get("attempt rollback_failed", 0)),
            failed=int(point.get("attempt failed", 0)),
            mean_repair_seconds=point.get("repair"),
        )
        for time, point in sorted(found.items())
    ]


def queue(reports: Any, tasks: Any) -> kpis_pb2.QueueKpis:
    """The queue in a window; `tasks` is None when a merchant's figures are asked for."""
    made = kpis_pb2.QueueKpis(
        reports=reports.reported,
        resolved=reports.resolved,
        escalated=reports.escalated,
        mean_resolution_seconds=reports.mean,
    )
    if tasks is not None:
        made.tries_completed, made.tries_retrying, made.tries_failed = tasks.completed, tasks.retrying, tasks.failed
    return made


def uptime(rows: Sequence[Any], seconds: float) -> list[kpis_pb2.Uptime]:
    """How often each service answered, and for how much of the window that is known."""
    return [
        kpis_pb2.Uptime(
            service=row.service,
            probes=row.probes,
            ratio=row.answered / row.probes if row.probes else None,
            covered=min(1.0, row.minutes * 60 / seconds),
        )
        for row in rows
    ]
