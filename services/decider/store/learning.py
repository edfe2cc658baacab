"""Rows of feedback and the projection learned from them. Feedback is only ever added, once per attempt and outcome."""

from dataclasses import dataclass
from datetime import datetime

from libs.common.beta_posterior import Outcomes
from libs.common.database import Transaction
from services.decider.decision import Decision, Remedy
from services.decider.learning import ANY, Lesson, counted

MOST = 500
ADD = """
INSERT INTO decider.feedback (
    attempt, outcome, label, decision, incident, plugin, package, symptom, from_release, action, to_release,
    confidence, propensity, reason, event_id, at)
VALUES (
    :attempt, :outcome, :label, :decision, :incident, :plugin, :package, :symptom, :from_release, :action, :to_release,
    :confidence, :propensity, :reason, :event_id, :at)
ON CONFLICT DO NOTHING
"""
COUNT = """
INSERT INTO decider.learning AS l (package, symptom, from_release, action, to_release, successes, failures, updated_at)
VALUES (:package, :symptom, :from_release, :action, :to_release, :successes, :failures, :at)
ON CONFLICT (package, symptom, from_release, action, to_release) DO UPDATE
SET successes = l.successes + :successes, failures = l.failures + :failures, updated_at = greatest(l.updated_at, :at)
"""
# Rows under "*" hold what is known of a release whatever it was meant to heal.
LEARNED = f"""
SELECT action, to_release, sum(successes) AS successes, sum(failures) AS failures FROM decider.learning
WHERE package = :package AND (
    (symptom = :symptom AND from_release = :from_release) OR (symptom = '{ANY}' AND from_release = '{ANY}'))
GROUP BY action, to_release ORDER BY action, to_release LIMIT {MOST}
"""


@dataclass(frozen=True)
class Feedback:
    """What one finished attempt taught about the decision behind it."""

    attempt: str
    decision: Decision
    lesson: Lesson
    reason: str
    event: str
    at: datetime


async def add(tx: Transaction, feedback: Feedback) -> bool:
    """Keeps feedback and counts it; False when this outcome of the attempt is known already."""
    decision, lesson = feedback.decision, feedback.lesson
    situation, chosen = decision.situation, decision.choice.chosen
    remedy = chosen.remedy
    key = {"package": situation.package, "action": remedy.action, "to_release": remedy.release}
    seen = {"symptom": situation.symptom, "from_release": situation.release}
    added = await tx.run(
        ADD,
        attempt=feedback.attempt,
        outcome=lesson.outcome,
        label=lesson.label.value,
        decision=decision.id,
        incident=decision.incident,
        plugin=decision.plugin,
        confidence=chosen.confidence,
        propensity=chosen.propensity,
        reason=feedback.reason,
        event_id=feedback.event,
        at=feedback.at,
        **key,
        **seen,
    )
    outcomes = counted(lesson)
    if added and outcomes != Outcomes():
        under = {"symptom": ANY, "from_release": ANY} if lesson.release_wide else seen
        await tx.run(COUNT, successes=outcomes.successes, failures=outcomes.failures, at=feedback.at, **key, **under)
    return added == 1


async def learned(tx: Transaction, package: str, symptom: str, from_release: str) -> dict[Remedy, Outcomes]:
    """Verified outcomes of every remedy in a situation."""
    rows = await tx.all(LEARNED, package=package, symptom=symptom, from_release=from_release)
    return {Remedy(row.action, row.to_release): Outcomes(row.successes, row.failures) for row in rows}
