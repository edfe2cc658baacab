"""Rows that stories, figures and the overview are read from.

Rule: each write merges with what is there so that order and repeats make no difference. `least` and `greatest` leave
out what is NULL, texts that only one fact can say are empty until it comes, and a state belongs to the latest fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from libs.common.database import Transaction
from services.ops.marks import (
    AttemptMark,
    DecisionMark,
    IncidentMark,
    Intervention,
    Left,
    Mark,
    NeedMark,
    ReportMark,
    TaskEnds,
)

INCIDENT = """
INSERT INTO ops.incidents AS i (
    incident, plugin, merchant, package, release, type, severity, evidence, rounds, seen_at, first_bad_at, opened_at,
    decided_at, applied_at, escalated_at, mitigated_at, closed_at, healed_by, resolution, manual)
VALUES (
    :incident, :plugin, :merchant, :package, :release, :type, :severity, :evidence, :rounds, :seen_at, :first_bad_at,
    :opened_at, :decided_at, :applied_at, :escalated_at, :mitigated_at, :closed_at, :healed_by, :resolution, :manual)
ON CONFLICT (incident) DO UPDATE SET
    plugin = greatest(i.plugin, excluded.plugin), merchant = greatest(i.merchant, excluded.merchant),
    package = greatest(i.package, excluded.package), release = greatest(i.release, excluded.release),
    type = greatest(i.type, excluded.type), severity = greatest(i.severity, excluded.severity),
    evidence = greatest(i.evidence, excluded.evidence), rounds = greatest(i.rounds, excluded.rounds),
    seen_at = least(i.seen_at, excluded.seen_at), first_bad_at = least(i.first_bad_at, excluded.first_bad_at),
    opened_at = least(i.opened_at, excluded.opened_at), decided_at = least(i.decided_at, excluded.decided_at),
    applied_at = least(i.applied_at, excluded.applied_at),
    escalated_at = least(i.escalated_at, excluded.escalated_at),
    mitigated_at = least(i.mitigated_at, excluded.mitigated_at), closed_at = least(i.closed_at, excluded.closed_at),
    healed_by = greatest(i.healed_by, excluded.healed_by), resolution = greatest(i.resolution, excluded.resolution),
    manual = i.manual OR excluded.manual
"""
LATER = "(excluded.state_at, excluded.state_rank) > (a.state_at, a.state_rank)"
ATTEMPT = f"""
INSERT INTO ops.attempts AS a (
    attempt, incident, decision, plugin, merchant, action, from_release, to_release, by_person, created_at, applied_at,
    state, state_at, state_rank, held_by, reason)
VALUES (
    :attempt, :incident, :decision, :plugin, :merchant, :action, :from_release, :to_release, :by_person, :created_at,
    :applied_at, :state, :state_at, :state_rank, :held_by, :reason)
ON CONFLICT (attempt) DO UPDATE SET
    incident = greatest(a.incident, excluded.incident), decision = greatest(a.decision, excluded.decision),
    plugin = greatest(a.plugin, excluded.plugin), merchant = greatest(a.merchant, excluded.merchant),
    action = greatest(a.action, excluded.action), from_release = greatest(a.from_release, excluded.from_release),
    to_release = greatest(a.to_release, excluded.to_release), by_person = a.by_person OR excluded.by_person,
    created_at = least(a.created_at, excluded.created_at), applied_at = least(a.applied_at, excluded.applied_at),
    state = CASE WHEN {LATER} THEN excluded.state ELSE a.state END,
    held_by = CASE WHEN {LATER} THEN excluded.held_by ELSE a.held_by END,
    reason = CASE WHEN {LATER} THEN excluded.reason ELSE a.reason END,
    state_at = CASE WHEN {LATER} THEN excluded.state_at ELSE a.state_at END,
    state_rank = CASE WHEN {LATER} THEN excluded.state_rank ELSE a.state_rank END
"""
DECISION = """
INSERT INTO ops.decisions (decision, incident, merchant, made_at, action, origin, confidence, decile)
VALUES (:decision, :incident, :merchant, :made_at, :action, :origin, :confidence, :decile)
ON CONFLICT (decision) DO NOTHING
"""
# Of one moment, what ends a need counts.
NEED = """
INSERT INTO ops.needs AS n (
    kind, subject, wanted, at, severity, line, command, until, incident, plugin, merchant)
VALUES (:kind, :subject, :wanted, :at, :severity, :line, :command, :until, :incident, :plugin, :merchant)
ON CONFLICT (kind, subject) DO UPDATE SET
    wanted = excluded.wanted, at = excluded.at, severity = excluded.severity, line = excluded.line,
    command = excluded.command, until = excluded.until, incident = excluded.incident, plugin = excluded.plugin,
    merchant = excluded.merchant
WHERE (excluded.at, NOT excluded.wanted) > (n.at, NOT n.wanted)
"""
LEFT = """
INSERT INTO ops.left_fleet AS l (plugin, at) VALUES (:plugin, :at)
ON CONFLICT (plugin) DO UPDATE SET at = least(l.at, excluded.at)
"""
INTERVENTION = """
INSERT INTO ops.interventions (event_id, at, fact, actor, merchant, incident)
VALUES (CAST(:event AS uuid), :at, :fact, :actor, :merchant, :incident) ON CONFLICT (event_id) DO NOTHING
"""
REPORT = """
INSERT INTO ops.reports AS r (report, merchant, first_at, resolved_at, escalated_at, closed_at, open_seconds)
VALUES (:report, :merchant, :first_at, :resolved_at, :escalated_at, :closed_at, :open_seconds)
ON CONFLICT (report) DO UPDATE SET
    merchant = greatest(r.merchant, excluded.merchant), first_at = least(r.first_at, excluded.first_at),
    resolved_at = greatest(r.resolved_at, excluded.resolved_at),
    escalated_at = least(r.escalated_at, excluded.escalated_at), closed_at = least(r.closed_at, excluded.closed_at),
    open_seconds = CASE WHEN r.resolved_at IS NULL OR excluded.resolved_at > r.resolved_at
                        THEN coalesce(excluded.open_seconds, r.open_seconds) ELSE r.open_seconds END
"""
TASK_ENDS = """
INSERT INTO ops.task_ends (event_id, at, completed, retrying, failed)
VALUES (CAST(:event AS uuid), :at, :completed, :retrying, :failed) ON CONFLICT (event_id) DO NOTHING
"""
# Replicas take turns; a batch is marked and noted in one transaction.
PAST = "SELECT position, until FROM ops.past WHERE position < until FOR UPDATE SKIP LOCKED"
UNMARKED = """
SELECT position, payload FROM ops.timeline WHERE position > :after AND position <= :until ORDER BY position LIMIT :batch
"""
MARKED = "UPDATE ops.past SET position = :position"
STATEMENTS: Mapping[type, str] = {
    IncidentMark: INCIDENT,
    AttemptMark: ATTEMPT,
    DecisionMark: DECISION,
    Left: LEFT,
    Intervention: INTERVENTION,
    ReportMark: REPORT,
    TaskEnds: TASK_ENDS,
}


async def write(tx: Transaction, mark: Mark) -> None:
    """Merges one mark into its row."""
    if isinstance(mark, NeedMark):
        about = mark.about
        values = asdict(mark.need) | {"at": about.at, "incident": about.incident}
        await tx.run(NEED, **values, plugin=about.plugin, merchant=about.merchant)
    else:
        await tx.run(STATEMENTS[type(mark)], **asdict(mark))


async def past(tx: Transaction, batch: int) -> tuple[list[bytes], int]:
    """Facts that were told before there were marks, and the position up to which they reach; 0 when none are left."""
    turn = await tx.first(PAST)
    if turn is None:
        return [], 0
    rows = await tx.all(UNMARKED, after=turn.position, until=turn.until, batch=batch)
    return [row.payload for row in rows], rows[-1].position if rows else turn.until


async def marked(tx: Transaction, position: int) -> None:
    """Notes how far the past has left its marks."""
    await tx.run(MARKED, position=position)
