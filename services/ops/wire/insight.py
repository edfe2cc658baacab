"""Stories, figures and the overview for people, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import names
from libs.common.errors import Invalid
from prunella.v1 import agent_pb2, ingest_pb2, insight_pb2, queue_pb2
from prunella.v1.events_pb2 import Event, Severity
from services.ops import overview
from services.ops.kpis import Bin, Share, Spread
from services.ops.marks import WHO
from services.ops.states import INCIDENT, SEVERITIES
from services.ops.stories import Moment, Story, Try, summary
from services.ops.wire.facts import told

LONGEST_NAME = 128


def moment(message: Any, field: str) -> datetime | None:
    """A moment of a request, None when it was not given. Raises Invalid."""
    if not message.HasField(field):
        return None
    try:
        found: datetime = getattr(message, field).ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"{field} is no moment between the years 1 and 9999", reason="BAD_TIME", field=field) from None
    return found


def severity(value: int) -> int:
    """1 to 4, 0 for any. Raises Invalid for a number that is no severity."""
    if value not in Severity.values():
        raise Invalid(
            f"severity must be one of {', '.join(SEVERITIES)}; {value} is none",
            reason="UNKNOWN_SEVERITY",
            field="severity",
        )
    return value


def state(text: str) -> str:
    """A state of incidents, empty for any. Raises Invalid."""
    if text and text not in INCIDENT:
        raise Invalid(
            f"state must be one of {', '.join(INCIDENT)}, not {text[:40]!r}", reason="UNKNOWN_STATE", field="state"
        )
    return text


def merchant(text: str) -> str:
    """A merchant's id, with or without its collection; empty for everybody. Raises Invalid."""
    text = text.removeprefix("merchants/")
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise Invalid(
            f"merchant must be an id of at most {LONGEST_NAME} characters", reason="BAD_NAME", field="merchant"
        )
    return text


def moments(rows: Sequence[tuple[bytes, str]]) -> list[Moment]:
    """Rows of the timeline as a story takes them: payload and label."""
    found = []
    for payload, label in rows:
        event = Event.FromString(payload)
        found.append(Moment(event.id, event.time.ToDatetime(UTC), told(event, label), event.plugin, event.merchant))
    return found


def story(found: Story, *, steps: bool) -> insight_pb2.Story:
    """A story for people; its steps only when asked for."""
    made = insight_pb2.Story(
        name=names.incident(found.incident),
        plugin=found.plugin,
        label=found.who,
        merchant=found.merchant,
        package=found.package,
        release=found.release,
        type=found.type,
        severity=_severity(found.severity),
        state=found.state,
        summary=summary(found),
        broke=found.broke,
        seen=found.seen,
        figures=found.figures,
        first_bad_beat_time=stamp(found.first_bad),
        open_time=stamp(found.opened),
        escalate_time=stamp(found.escalated),
        end_time=stamp(found.ended),
        rounds=found.rounds,
        attempts=[_attempt(one) for one in found.tries],
        ending=found.ending,
        undo=found.undo,
        needed=found.needed,
        assignee=found.assignee,
        manual=found.manual,
        cut=found.cut,
    )
    if steps:
        for line in found.lines:
            made.steps.add(time=stamp(line.at), fact=line.fact, line=line.text, event_id=line.id)
    return made


def _attempt(one: Try) -> insight_pb2.StoryAttempt:
    return insight_pb2.StoryAttempt(
        attempt=one.attempt,
        decision=one.decision,
        action=one.action,
        from_release=one.from_release,
        to_release=one.to_release,
        round=one.round,
        confidence=one.confidence,
        why=one.why,
        staging=one.staging,
        verdict=one.verdict,
        state=one.state,
        outcome=one.outcome,
        held_by=one.held_by,
        actor=one.by,
        create_time=stamp(one.began),
        end_time=stamp(one.ended),
        undo=one.undo,
    )


def stamp(at: datetime | None) -> Timestamp | None:
    """A moment for people; None stays unset."""
    if at is None:
        return None
    made = Timestamp()
    made.FromDatetime(at)
    return made


def _severity(word: str) -> Severity.ValueType:
    return Severity.Value(f"SEVERITY_{word.upper()}") if word in SEVERITIES else Severity.SEVERITY_UNSPECIFIED


def severity_word(number: int) -> str:
    """The word of a severity, empty for none."""
    return SEVERITIES[number - 1] if 0 < number <= len(SEVERITIES) else ""


def ratio(share: Share) -> insight_pb2.Ratio:
    """A share with its target."""
    return insight_pb2.Ratio(
        part=share.part, whole=share.whole, value=share.value, target=share.target, met=share.met, above=share.over
    )


def durations(spread: Spread) -> insight_pb2.Durations:
    """How durations are spread, with their target."""
    return insight_pb2.Durations(
        cases=spread.cases,
        mean_seconds=spread.mean,
        p50_seconds=spread.p50,
        p95_seconds=spread.p95,
        target_seconds=spread.target,
        met=spread.met,
    )


def confidence(found: Sequence[Bin]) -> list[insight_pb2.ConfidenceBin]:
    """What was stated and what was achieved, by tenths."""
    return [
        insight_pb2.ConfidenceBin(
            lower=one.lower,
            upper=one.upper,
            decisions=one.decisions,
            stated=one.stated,
            tried=one.tried,
            achieved=one.achieved,
        )
        for one in found
    ]


def points(found: Mapping[datetime, Mapping[str, float]]) -> list[insight_pb2.KpiPoint]:
    """What happened when, oldest first."""
    return [
        insight_pb2.KpiPoint(
            time=stamp(at),
            opened=int(point.get("opened", 0)),
            mitigated=int(point.get("mitigated", 0)),
            closed=int(point.get("closed", 0)),
            succeeded=int(point.get("attempt success", 0)),
            rolled_back=int(point.get("attempt rolled_back", 0) + point.get("attempt rollback_failed", 0)),
            failed=int(point.get("attempt failed", 0)),
            mean_repair_seconds=point.get("repair"),
        )
        for at, point in sorted(found.items())
    ]


def fleet(answer: ingest_pb2.GetFleetResponse | None, now: datetime) -> insight_pb2.FleetNow | None:
    """The fleet; None stays absent."""
    if answer is None:
        return None
    made = insight_pb2.FleetNow(plugins=answer.plugins, parts=answer.groups, time=stamp(now))
    for part in answer.groups:
        word = agent_pb2.Health.Name(part.health).removeprefix("HEALTH_").lower()
        made.by_health[word] += part.plugins
        made.connected += part.connected
    return made


def queue(answer: queue_pb2.GetQueueStatsResponse | None) -> insight_pb2.QueueNow | None:
    """The queue as it stands; None stays absent."""
    if answer is None:
        return None
    oldest = answer.oldest_waiting_seconds if answer.HasField("oldest_waiting_seconds") else None
    return insight_pb2.QueueNow(tasks=answer.tasks, reports=answer.reports, oldest_waiting_seconds=oldest)


def queue_figures(reports: Any, tasks: Any) -> insight_pb2.QueueFigures:
    """The queue in a window; `tasks` is None when a merchant's figures are asked for."""
    made = insight_pb2.QueueFigures(
        reports=reports.reported,
        resolved=reports.resolved,
        escalated=reports.escalated,
        mean_resolution_seconds=reports.mean,
    )
    if tasks is not None:
        made.tries_completed, made.tries_retrying, made.tries_failed = tasks.completed, tasks.retrying, tasks.failed
    return made


def uptime(rows: Sequence[Any], seconds: float) -> list[insight_pb2.Uptime]:
    """How often each service answered, and for how much of the window that is known."""
    return [
        insight_pb2.Uptime(
            service=row.service,
            probes=row.probes,
            ratio=row.answered / row.probes if row.probes else None,
            covered=min(1.0, row.minutes * 60 / seconds),
        )
        for row in rows
    ]


def wrong(row: Any) -> insight_pb2.WrongNow:
    """An incident that is not over."""
    broken = overview.Broken(
        who=overview.called(row.label, row.plugin),
        type=row.type,
        severity=severity_word(row.severity),
        state=row.state,
        evidence=row.evidence,
        rounds=row.rounds,
        action=row.action or "",
        from_release=row.from_release or "",
        to_release=row.to_release or "",
        doing=row.doing or "",
        held_by=row.held_by or "",
    )
    return insight_pb2.WrongNow(
        incident=row.incident,
        plugin=row.plugin,
        label=row.label,
        merchant=row.merchant,
        type=row.type,
        severity=Severity.ValueType(row.severity),
        state=overview.state(broken),
        open_time=stamp(row.began_at),
        line=overview.line(broken),
        attempt=row.attempt or "",
    )


def need(row: Any) -> insight_pb2.NeededNow:
    """Something only people can do."""
    return insight_pb2.NeededNow(
        kind=row.kind,
        subject=row.subject,
        severity=Severity.ValueType(row.severity),
        since_time=stamp(row.at),
        line=row.line.replace(WHO, overview.called(row.label, row.plugin), 1),
        command=row.command,
        incident=row.incident,
        plugin=row.plugin,
    )


def parked(row: Any) -> insight_pb2.NeededNow:
    """Facts that a consumer could not handle."""
    facts = "1 fact" if row.count == 1 else f"{row.count} facts"
    return insight_pb2.NeededNow(
        kind="dead_letter",
        subject=row.consumer,
        severity=Severity.SEVERITY_HIGH,
        since_time=stamp(row.at),
        line=f"{row.consumer} could not handle {facts}",
        command=f"prunella dead-letters list --consumer {row.consumer}",
    )


def service(row: Any, now: datetime) -> insight_pb2.ServiceNow:
    """A service as it was last probed."""
    return insight_pb2.ServiceNow(
        service=row.service,
        health=overview.health(row.health, row.probed_at, now),
        since_time=stamp(row.since),
        probe_time=stamp(row.probed_at),
    )


def by_severity(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by the words of severities; what has none yet is `unknown`."""
    return {severity_word(number) or "unknown": count for number, count in sorted(counts.items(), reverse=True)}
