"""Rows of projections: what stories, figures and the overview are read from.

Rule: each write merges with what is there so that order and repeats make no difference. `least` and `greatest` leave
out what is NULL, texts that only one fact can say are empty until it comes, and a state belongs to the latest fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from libs.common.database import Transaction
from services.ops.attention import AttentionItem
from services.ops.projection_updates import (
    AttemptUpdate,
    Decision,
    IncidentUpdate,
    Intervention,
    ReportUpdate,
    RetiredPlugin,
    TaskOutcomes,
    Update,
)

INCIDENT = """
INSERT INTO ops.incidents AS i (
    incident, plugin, merchant, package, release, type, severity, evidence, rounds, first_fact_time,
    first_bad_beat_time, open_time, decide_time, apply_time, escalate_time, mitigate_time, close_time, reopen_time,
    reopened, flapping, healed_by, resolution, manual)
VALUES (
    :incident, :plugin, :merchant, :package, :release, :type, :severity, :evidence, :rounds, :first_fact_time,
    :first_bad_beat_time, :open_time, :decide_time, :apply_time, :escalate_time, :mitigate_time, :close_time,
    :reopen_time, :reopened, :flapping, :healed_by, :resolution, :manual)
ON CONFLICT (incident) DO UPDATE SET
    plugin = greatest(i.plugin, excluded.plugin), merchant = greatest(i.merchant, excluded.merchant),
    package = greatest(i.package, excluded.package), release = greatest(i.release, excluded.release),
    type = greatest(i.type, excluded.type), severity = greatest(i.severity, excluded.severity),
    evidence = greatest(i.evidence, excluded.evidence), rounds = greatest(i.rounds, excluded.rounds),
    first_fact_time = least(i.first_fact_time, excluded.first_fact_time),
    first_bad_beat_time = least(i.first_bad_beat_time, excluded.first_bad_beat_time),
    open_time = least(i.open_time, excluded.open_time), decide_time = least(i.decide_time, excluded.decide_time),
    apply_time = least(i.apply_time, excluded.apply_time),
    escalate_time = least(i.escalate_time, excluded.escalate_time),
    mitigate_time = greatest(i.mitigate_time, excluded.mitigate_time),
    close_time = greatest(i.close_time, excluded.close_time),
    reopen_time = greatest(i.reopen_time, excluded.reopen_time),
    reopened = greatest(i.reopened, excluded.reopened), flapping = i.flapping OR excluded.flapping,
    healed_by = greatest(i.healed_by, excluded.healed_by), resolution = greatest(i.resolution, excluded.resolution),
    manual = i.manual OR excluded.manual
"""
LATER = "(excluded.state_time, excluded.state_rank) > (a.state_time, a.state_rank)"
ATTEMPT = f"""
INSERT INTO ops.attempts AS a (
    attempt, incident, decision, plugin, merchant, action, from_release, to_release, by_operator, create_time,
    apply_time, state, state_time, state_rank, held_by, reason)
VALUES (
    :attempt, :incident, :decision, :plugin, :merchant, :action, :from_release, :to_release, :by_operator, :create_time,
    :apply_time, :state, :state_time, :state_rank, :held_by, :reason)
ON CONFLICT (attempt) DO UPDATE SET
    incident = greatest(a.incident, excluded.incident), decision = greatest(a.decision, excluded.decision),
    plugin = greatest(a.plugin, excluded.plugin), merchant = greatest(a.merchant, excluded.merchant),
    action = greatest(a.action, excluded.action), from_release = greatest(a.from_release, excluded.from_release),
    to_release = greatest(a.to_release, excluded.to_release), by_operator = a.by_operator OR excluded.by_operator,
    create_time = least(a.create_time, excluded.create_time), apply_time = least(a.apply_time, excluded.apply_time),
    state = CASE WHEN {LATER} THEN excluded.state ELSE a.state END,
    held_by = CASE WHEN {LATER} THEN excluded.held_by ELSE a.held_by END,
    reason = CASE WHEN {LATER} THEN excluded.reason ELSE a.reason END,
    state_time = CASE WHEN {LATER} THEN excluded.state_time ELSE a.state_time END,
    state_rank = CASE WHEN {LATER} THEN excluded.state_rank ELSE a.state_rank END
"""
DECISION = """
INSERT INTO ops.decisions (decision, incident, merchant, create_time, action, origin, confidence, decile)
VALUES (:decision, :incident, :merchant, :create_time, :action, :origin, :confidence, :decile)
ON CONFLICT (decision) DO NOTHING
"""
# Of one time, what clears an item counts.
ATTENTION = """
INSERT INTO ops.attention AS n (
    kind, subject, active, time, severity, line, command, expire_time, incident, plugin, merchant)
VALUES (:kind, :subject, :active, :time, :severity, :line, :command, :expire_time, :incident, :plugin, :merchant)
ON CONFLICT (kind, subject) DO UPDATE SET
    active = excluded.active, time = excluded.time, severity = excluded.severity, line = excluded.line,
    command = excluded.command, expire_time = excluded.expire_time, incident = excluded.incident,
    plugin = excluded.plugin, merchant = excluded.merchant
WHERE (excluded.time, NOT excluded.active) > (n.time, NOT n.active)
"""
RETIRED = """
INSERT INTO ops.retired_plugins AS r (plugin, merchant, retire_time) VALUES (:plugin, :merchant, :retire_time)
ON CONFLICT (plugin) DO UPDATE SET
    merchant = greatest(r.merchant, excluded.merchant), retire_time = least(r.retire_time, excluded.retire_time)
"""
INTERVENTION = """
INSERT INTO ops.interventions (event_id, time, fact, actor, merchant, incident)
VALUES (CAST(:event AS uuid), :time, :fact, :actor, :merchant, :incident) ON CONFLICT (event_id) DO NOTHING
"""
REPORT = """
INSERT INTO ops.error_reports AS r (
    report, merchant, report_time, resolve_time, escalate_time, close_time, open_seconds)
VALUES (:report, :merchant, :report_time, :resolve_time, :escalate_time, :close_time, :open_seconds)
ON CONFLICT (report) DO UPDATE SET
    merchant = greatest(r.merchant, excluded.merchant), report_time = least(r.report_time, excluded.report_time),
    resolve_time = greatest(r.resolve_time, excluded.resolve_time),
    escalate_time = least(r.escalate_time, excluded.escalate_time),
    close_time = least(r.close_time, excluded.close_time),
    open_seconds = CASE WHEN r.resolve_time IS NULL OR excluded.resolve_time > r.resolve_time
                        THEN coalesce(excluded.open_seconds, r.open_seconds) ELSE r.open_seconds END
"""
TASK_OUTCOMES = """
INSERT INTO ops.task_outcomes (event_id, time, completed, retrying, failed)
VALUES (CAST(:event AS uuid), :time, :completed, :retrying, :failed) ON CONFLICT (event_id) DO NOTHING
"""
# Replicas take turns; a batch is projected and its position saved in one transaction.
BACKFILL = """
SELECT position, end_position FROM ops.projection_backfill WHERE position < end_position FOR UPDATE SKIP LOCKED
"""
UNPROJECTED = """
SELECT position, payload FROM ops.timeline WHERE position > :after AND position <= :until ORDER BY position LIMIT :batch
"""
ADVANCE = "UPDATE ops.projection_backfill SET position = :position"
STATEMENTS: Mapping[type, str] = {
    IncidentUpdate: INCIDENT,
    AttemptUpdate: ATTEMPT,
    Decision: DECISION,
    AttentionItem: ATTENTION,
    RetiredPlugin: RETIRED,
    Intervention: INTERVENTION,
    ReportUpdate: REPORT,
    TaskOutcomes: TASK_OUTCOMES,
}


async def merge(tx: Transaction, update: Update) -> None:
    """Merges one update into its row."""
    await tx.run(STATEMENTS[type(update)], **asdict(update))


async def unprojected(tx: Transaction, batch: int) -> tuple[list[bytes], int]:
    """The next facts the backfill has not projected, and the position up to which they reach; 0 when it is done."""
    backfill = await tx.first(BACKFILL)
    if backfill is None:
        return [], 0
    rows = await tx.all(UNPROJECTED, after=backfill.position, until=backfill.end_position, batch=batch)
    return [row.payload for row in rows], rows[-1].position if rows else backfill.end_position


async def advance(tx: Transaction, position: int) -> None:
    """Saves how far the backfill is."""
    await tx.run(ADVANCE, position=position)
