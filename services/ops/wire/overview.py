"""The overview ⇄ protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prunella.v1 import agent_pb2, ingest_pb2, overview_pb2, queue_pb2
from prunella.v1.events_pb2 import Severity
from services.ops import overview, severity
from services.ops.decoded_fact import display_name
from services.ops.projections import LABEL
from services.ops.text import counted
from services.ops.wire.filters import timestamp


def fleet(answer: ingest_pb2.GetFleetResponse | None, now: datetime) -> overview_pb2.FleetSummary | None:
    """The fleet; None stays absent."""
    if answer is None:
        return None
    made = overview_pb2.FleetSummary(plugins=answer.plugins, groups=answer.groups, time=timestamp(now))
    for part in answer.groups:
        health = agent_pb2.Health.Name(part.health).removeprefix("HEALTH_").lower()
        made.by_health[health] += part.plugins - part.away
        made.by_health["away"] += part.away
        made.connected += part.connected
    for word in [word for word, count in made.by_health.items() if not count]:
        del made.by_health[word]
    return made


def queue(answer: queue_pb2.GetQueueStatsResponse | None) -> overview_pb2.QueueSummary | None:
    """The queue at this time; None stays absent."""
    if answer is None:
        return None
    oldest = answer.oldest_waiting_seconds if answer.HasField("oldest_waiting_seconds") else None
    return overview_pb2.QueueSummary(tasks=answer.tasks, reports=answer.reports, oldest_waiting_seconds=oldest)


def active_incident(row: Any) -> overview_pb2.ActiveIncident:
    """An incident that is not over."""
    found = overview.ActiveIncident(
        label=display_name(row.label, row.plugin),
        type=row.type,
        severity=severity.word(row.severity),
        state=row.state,
        evidence=row.evidence,
        reopened=row.reopened,
        action=row.action or "",
        from_release=row.from_release or "",
        to_release=row.to_release or "",
        attempt_state=row.attempt_state or "",
        held_by=row.held_by or "",
    )
    return overview_pb2.ActiveIncident(
        incident=row.incident,
        plugin=row.plugin,
        label=row.label,
        merchant=row.merchant,
        type=row.type,
        severity=Severity.ValueType(row.severity),
        state=overview.state(found),
        open_time=timestamp(row.start_time),
        line=overview.line(found),
        attempt=row.attempt or "",
        reopened=row.reopened,
    )


def attention(row: Any) -> overview_pb2.AttentionItem:
    """Something that needs a person."""
    return overview_pb2.AttentionItem(
        kind=row.kind,
        subject=row.subject,
        severity=Severity.ValueType(row.severity),
        since_time=timestamp(row.time),
        line=row.line.replace(LABEL, display_name(row.label, row.plugin), 1),
        command=row.command,
        incident=row.incident,
        plugin=row.plugin,
    )


def dead_letters(row: Any) -> overview_pb2.AttentionItem:
    """Facts that a consumer could not handle."""
    return overview_pb2.AttentionItem(
        kind="dead_letter",
        subject=row.consumer,
        severity=Severity.SEVERITY_HIGH,
        since_time=timestamp(row.time),
        line=f"{row.consumer} could not handle {counted(row.count, 'fact')}",
        command=f"prunella dead-letters list --consumer {row.consumer}",
    )


def service_status(row: Any, now: datetime) -> overview_pb2.ServiceStatus:
    """A service as it was last probed."""
    return overview_pb2.ServiceStatus(
        service=row.service,
        health=overview.health(row.health, row.probe_time, now),
        since_time=timestamp(row.since_time),
        probe_time=timestamp(row.probe_time),
    )


def by_severity(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by the words of severities; what has none yet is `unknown`."""
    return {severity.word(number) or "unknown": count for number, count in sorted(counts.items(), reverse=True)}
