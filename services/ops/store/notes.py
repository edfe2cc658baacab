"""Rows of what people note about incidents."""

from __future__ import annotations

from typing import Any

from libs.common.database import Transaction
from services.ops.notes import Assignment, Comment, Notes

MOST = 100
# Assignments of one incident come one after the other, so that each knows the one before it.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(:incident, 7319011))"
ASSIGNED = "SELECT * FROM ops.assignments WHERE incident = :incident ORDER BY id DESC LIMIT 1"
COMMENTS = "SELECT * FROM ops.comments WHERE incident = :incident ORDER BY id DESC LIMIT :most"
ASSIGN = """
INSERT INTO ops.assignments (id, incident, assignee, actor, request_id, time)
VALUES (CAST(:id AS uuid), :incident, :assignee, :actor, :request, :time)
"""
COMMENT = """
INSERT INTO ops.comments (id, incident, text, actor, request_id, time)
VALUES (CAST(:id AS uuid), :incident, :text, :actor, :request, :time)
"""
ASSIGNED_BY = "SELECT * FROM ops.assignments WHERE actor = :actor AND request_id = :request AND request_id <> ''"
COMMENTED_BY = "SELECT * FROM ops.comments WHERE actor = :actor AND request_id = :request AND request_id <> ''"


async def lock(tx: Transaction, incident: str) -> None:
    """Lets one writer at a time note something about an incident."""
    await tx.value(LOCK, incident=incident)


async def get(tx: Transaction, incident: str) -> Notes:
    """What is noted."""
    row = await tx.first(ASSIGNED, incident=incident)
    rows = await tx.all(COMMENTS, incident=incident, most=MOST)
    return Notes(incident, _assignment(row) if row else None, tuple(_comment(row) for row in reversed(rows)))


async def assignment_of(tx: Transaction, actor: str, request: str) -> Assignment | None:
    """What a request did before."""
    row = await tx.first(ASSIGNED_BY, actor=actor, request=request)
    return _assignment(row) if row else None


async def comment_of(tx: Transaction, actor: str, request: str) -> Comment | None:
    """What a request did before."""
    row = await tx.first(COMMENTED_BY, actor=actor, request=request)
    return _comment(row) if row else None


async def assign(tx: Transaction, made: Assignment) -> None:
    """Writes one down."""
    values = {"id": made.id, "incident": made.incident, "assignee": made.assignee}
    await tx.run(ASSIGN, actor=made.actor, request=made.request, time=made.time, **values)


async def comment(tx: Transaction, made: Comment) -> None:
    """Writes one down."""
    values = {"id": made.id, "incident": made.incident, "text": made.text}
    await tx.run(COMMENT, actor=made.actor, request=made.request, time=made.time, **values)


def _assignment(row: Any) -> Assignment:
    return Assignment(str(row.id), row.incident, row.assignee, row.actor, row.request_id, row.time)


def _comment(row: Any) -> Comment:
    return Comment(str(row.id), row.incident, row.text, row.actor, row.request_id, row.time)
