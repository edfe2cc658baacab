"""Rows of feedback and the projection learned from them. Feedback is only ever added, once per attempt and outcome."""

from dataclasses import dataclass
from datetime import datetime

from libs.common.beta_posterior import Outcomes
from libs.common.database import Transaction
from services.decider.decision import Decision, Remedy
from services.decider.learning import ANY, LabelledOutcome, count_of

MOST = 500
ADD = """
INSERT INTO decider.feedback (
    attempt, outcome, label, decision, incident, plugin, merchant, package, symptom, from_release, action, to_release,
    confidence, propensity, reason, event_id, create_time)
VALUES (
    :attempt, :outcome, :label, :decision, :incident, :plugin, :merchant, :package, :symptom, :from_release, :action,
    :to_release, :confidence, :propensity, :reason, :event_id, :create_time)
ON CONFLICT DO NOTHING
"""
COUNT = """
INSERT INTO decider.outcomes AS l (package, symptom, from_release, action, to_release, successes, failures, update_time)
VALUES (:package, :symptom, :from_release, :action, :to_release, :successes, :failures, :at)
ON CONFLICT (package, symptom, from_release, action, to_release) DO UPDATE
SET successes = l.successes + :successes, failures = l.failures + :failures, update_time = greatest(l.update_time, :at)
"""
# Rows under "*" hold what is known of a release whatever it was meant to heal.
LEARNED = f"""
SELECT action, to_release, sum(successes) AS successes, sum(failures) AS failures FROM decider.outcomes
WHERE package = :package AND (
    (symptom = :symptom AND from_release = :from_release) OR (symptom = '{ANY}' AND from_release = '{ANY}'))
GROUP BY action, to_release ORDER BY action, to_release LIMIT {MOST}
"""


@dataclass(frozen=True)
class Feedback:
    """What one finished attempt taught about the decision behind it."""

    attempt: str
    decision: Decision
    labelled: LabelledOutcome
    reason: str
    event: str
    create_time: datetime


async def add(tx: Transaction, feedback: Feedback) -> bool:
    """Saves feedback and counts it; False when this outcome of the attempt is known already."""
    decision, labelled = feedback.decision, feedback.labelled
    inputs, chosen = decision.inputs, decision.choice.chosen
    remedy = chosen.remedy
    key = {"package": inputs.package, "action": remedy.action, "to_release": remedy.release}
    seen = {"symptom": inputs.symptom, "from_release": inputs.release}
    added = await tx.run(
        ADD,
        attempt=feedback.attempt,
        outcome=labelled.outcome,
        label=labelled.label.value,
        decision=decision.id,
        incident=decision.incident,
        plugin=decision.plugin,
        confidence=chosen.confidence,
        propensity=chosen.propensity,
        reason=feedback.reason,
        event_id=feedback.event,
        create_time=feedback.create_time,
        merchant=decision.merchant,
        **key,
        **seen,
    )
    outcomes = count_of(labelled)
    if added and outcomes != Outcomes():
        under = {"symptom": ANY, "from_release": ANY} if labelled.release_wide else seen
        await tx.run(
            COUNT, successes=outcomes.successes, failures=outcomes.failures, at=feedback.create_time, **key, **under
        )
    return added == 1


async def outcomes_by_remedy(tx: Transaction, package: str, symptom: str, from_release: str) -> dict[Remedy, Outcomes]:
    """Verified outcomes of every remedy for a symptom on a release of a package."""
    rows = await tx.all(LEARNED, package=package, symptom=symptom, from_release=from_release)
    return {Remedy(row.action, row.to_release): Outcomes(row.successes, row.failures) for row in rows}
