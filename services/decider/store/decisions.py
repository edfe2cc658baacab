"""Rows of decisions ⇄ dataclasses. A decision is unique for its incident and round; only an asking one ever changes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.names import is_uuid
from services.decider.decision import (
    Candidate,
    Choice,
    Decision,
    Origin,
    Remedy,
    Situation,
    State,
    Tried,
)

COLUMNS = """id, incident, round, plugin, merchant, state, confident, explanation, story, situation, candidates,
    versions, features, cause_id, traceparent, created_at, decided_at, deadline_at"""
INSERT = """
INSERT INTO decider.decisions (
    id, incident, round, plugin, merchant, state, symptom, severity, package, from_release, action, release, origin,
    confidence, propensity, confident, explanation, story, situation, candidates, versions, features, cause_id,
    traceparent, created_at, decided_at, deadline_at)
VALUES (
    :id, :incident, :round, :plugin, :merchant, :state, :symptom, :severity, :package, :from_release, :action, :release,
    :origin, :confidence, :propensity, :confident, :explanation, CAST(:story AS jsonb), CAST(:situation AS jsonb),
    CAST(:candidates AS jsonb), CAST(:versions AS jsonb), CAST(:features AS jsonb), :cause_id, :traceparent,
    :created_at, :decided_at, :deadline_at)
ON CONFLICT (incident, round) DO NOTHING
"""
CONCLUDE = """
UPDATE decider.decisions
SET state = :state, action = :action, release = :release, origin = :origin, confidence = :confidence,
    propensity = :propensity, confident = :confident, explanation = :explanation, story = CAST(:story AS jsonb),
    candidates = CAST(:candidates AS jsonb), versions = CAST(:versions AS jsonb), features = CAST(:features AS jsonb),
    decided_at = :decided_at
WHERE id = :id AND state = 'asking'
"""
SUPERSEDE_ROUNDS = """
UPDATE decider.decisions SET state = 'superseded' WHERE incident = :incident AND round < :round AND state = 'asking'
"""
SUPERSEDE = "UPDATE decider.decisions SET state = 'superseded' WHERE id = :id AND state = 'asking'"
GET = f"SELECT {COLUMNS} FROM decider.decisions WHERE id = CAST(:id AS uuid)"
LOCK_ASKING = f"{GET} AND state = 'asking' FOR UPDATE"
LIST = f"""
SELECT {COLUMNS} FROM decider.decisions
WHERE (:incident = '' OR incident = :incident) AND (:plugin = '' OR plugin = :plugin)
  AND (:after = '' OR id < CAST(nullif(:after, '') AS uuid))
ORDER BY id DESC LIMIT :limit
"""
UNANSWERED = f"""
SELECT {COLUMNS} FROM decider.decisions WHERE state = 'asking' AND deadline_at <= :now ORDER BY deadline_at LIMIT :limit
"""
HISTORY = """
SELECT count(DISTINCT d.incident) AS total,
       count(DISTINCT d.incident) FILTER (WHERE d.severity = 'critical') AS critical,
       count(DISTINCT f.incident) AS mitigated
FROM decider.decisions d
LEFT JOIN decider.feedback f ON f.incident = d.incident AND f.label = 'positive'
WHERE d.plugin = :plugin
"""


async def insert(tx: Transaction, decision: Decision) -> bool:
    """Saves a decision; False when its round has one already."""
    situation = decision.situation
    rows = await tx.run(
        INSERT,
        incident=decision.incident,
        round=situation.round,
        plugin=decision.plugin,
        merchant=decision.merchant,
        symptom=situation.symptom,
        severity=situation.severity,
        package=situation.package,
        from_release=situation.release,
        situation=json.dumps(asdict(situation), default=_moment),
        cause_id=decision.cause,
        traceparent=decision.traceparent,
        created_at=decision.create_time,
        deadline_at=decision.deadline_time,
        **_chosen(decision),
    )
    return rows == 1


async def conclude(tx: Transaction, decision: Decision) -> bool:
    """Writes what became of an asking decision; False when it was not asking any more."""
    return await tx.run(CONCLUDE, **_chosen(decision)) == 1


async def supersede(tx: Transaction, decision: str) -> None:
    """Ends an asking decision whose cause is gone."""
    await tx.run(SUPERSEDE, id=decision)


async def supersede_rounds(tx: Transaction, incident: str, before: int) -> None:
    """Ends what is still asking for earlier rounds of an incident."""
    await tx.run(SUPERSEDE_ROUNDS, incident=incident, round=before)


async def get(tx: Transaction, decision: str) -> Decision | None:
    """One decision; None for an id that is unknown or no id at all."""
    if not is_uuid(decision):
        return None
    row = await tx.first(GET, id=decision)
    return None if row is None else _decision(row)


async def lock_asking(tx: Transaction, decision: str) -> Decision | None:
    """The decision while it is still asking, locked until the commit; None otherwise."""
    row = await tx.first(LOCK_ASKING, id=decision)
    return None if row is None else _decision(row)


async def page(tx: Transaction, *, incident: str, plugin: str, after: str, limit: int) -> list[Decision]:
    """Decisions, newest first, after the id `after`."""
    return [_decision(row) for row in await tx.all(LIST, incident=incident, plugin=plugin, after=after, limit=limit)]


async def unanswered(tx: Transaction, now: datetime, limit: int) -> list[Decision]:
    """Decisions that have been asking beyond their deadline, the latest first in line."""
    return [_decision(row) for row in await tx.all(UNANSWERED, now=now, limit=limit)]


async def history(tx: Transaction, plugin: str) -> dict[str, int]:
    """How many incidents of a plugin were decided on, were critical, and were healed."""
    row = await tx.first(HISTORY, plugin=plugin)
    return {"total": 0, "critical": 0, "mitigated": 0} if row is None else row._asdict()


def _chosen(decision: Decision) -> dict[str, Any]:
    choice, chosen = decision.choice, decision.choice.chosen
    return {
        "id": decision.id,
        "state": decision.state.value,
        "action": chosen.remedy.action,
        "release": chosen.remedy.release,
        "origin": chosen.origin.value,
        "confidence": chosen.confidence,
        "propensity": chosen.propensity,
        "confident": choice.confident,
        "explanation": choice.explanation,
        "story": json.dumps(choice.story),
        "candidates": json.dumps([_written(candidate, candidate is chosen) for candidate in _with(choice)]),
        "versions": json.dumps(decision.versions),
        "features": json.dumps(decision.features),
        "decided_at": decision.decide_time,
    }


def _with(choice: Choice) -> Sequence[Candidate]:
    # The chosen one is stored at its place among the others, marked.
    chosen = choice.chosen
    return [
        chosen if (candidate.remedy, candidate.origin) == (chosen.remedy, chosen.origin) else candidate
        for candidate in choice.candidates
    ]


def _written(candidate: Candidate, chosen: bool) -> dict[str, Any]:
    return asdict(candidate) | {"chosen": chosen}


def _decision(row: Any) -> Decision:
    candidates = [_candidate(stored) for stored in row.candidates]
    marks = [bool(stored["chosen"]) for stored in row.candidates]
    return Decision(
        id=str(row.id),
        incident=row.incident,
        plugin=row.plugin,
        merchant=row.merchant,
        state=State(row.state),
        situation=_situation(row.situation),
        choice=Choice(
            chosen=candidates[marks.index(True)],
            candidates=tuple(candidates),
            confident=row.confident,
            explanation=row.explanation,
            story=tuple(row.story),
        ),
        versions=row.versions,
        features=row.features,
        cause=row.cause_id,
        traceparent=row.traceparent,
        create_time=row.created_at,
        decide_time=row.decided_at,
        deadline_time=row.deadline_at,
    )


def _candidate(stored: dict[str, Any]) -> Candidate:
    rest = {key: value for key, value in stored.items() if key not in {"remedy", "origin", "tier", "chosen"}}
    return Candidate(
        remedy=Remedy(**stored["remedy"]), origin=Origin(stored["origin"]), tier=tuple(stored["tier"]), **rest
    )


def _situation(stored: dict[str, Any]) -> Situation:
    rest = {key: value for key, value in stored.items() if key not in {"tried", "failing_inputs", "act_by"}}
    return Situation(
        tried=tuple(Tried(**tried) for tried in stored["tried"]),
        failing_inputs=tuple(stored["failing_inputs"]),
        act_by=datetime.fromisoformat(stored["act_by"]) if stored["act_by"] else None,
        **rest,
    )


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
