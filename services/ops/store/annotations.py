"""Rows of assignments and comments."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, TypeVar

from libs.common.database import Transaction
from services.ops.incident_annotations import Annotations, Assignment, Comment

MOST = 100
# Annotations of one incident come one after the other, so that each assignment knows the one before it.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(:incident, 7319011))"
TABLES = {Assignment: "ops.assignments", Comment: "ops.comments"}
NEWEST = "SELECT * FROM {table} WHERE incident = :incident ORDER BY id DESC LIMIT :limit"
ASSIGN = """
INSERT INTO ops.assignments (id, incident, merchant, assignee, actor, time)
VALUES (CAST(:id AS uuid), :incident, :merchant, :assignee, :actor, :time)
"""
COMMENT = """
INSERT INTO ops.comments (id, incident, merchant, text, actor, time)
VALUES (CAST(:id AS uuid), :incident, :merchant, :text, :actor, :time)
"""

A = TypeVar("A", Assignment, Comment)


async def lock(tx: Transaction, incident: str) -> None:
    """Lets one writer at a time annotate an incident."""
    await tx.value(LOCK, incident=incident)


async def get(tx: Transaction, incident: str) -> Annotations:
    """The annotations of an incident, the newest MOST comments."""
    assignments = await _newest(tx, Assignment, incident, 1)
    comments = await _newest(tx, Comment, incident, MOST)
    return Annotations(incident, assignments[0] if assignments else None, tuple(reversed(comments)))


async def insert(tx: Transaction, made: Assignment | Comment) -> None:
    """Saves one."""
    await tx.run(ASSIGN if isinstance(made, Assignment) else COMMENT, **asdict(made))


async def _newest(tx: Transaction, kind: type[A], incident: str, limit: int) -> list[A]:
    rows = await tx.all(NEWEST.format(table=TABLES[kind]), incident=incident, limit=limit)
    return [_made(kind, row) for row in rows]


def _made(kind: type[A], row: Any) -> A:
    values = {field.name: getattr(row, field.name) for field in fields(kind)}
    return kind(**values | {"id": str(row.id)})
