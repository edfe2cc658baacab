"""Rows of what was learned of each type ⇄ dataclasses."""

from __future__ import annotations

import json
from collections.abc import Sequence

from libs.common.database import Transaction
from services.queue.classifier import Classifier, TypeCounts, from_rows

ALL = 'SELECT type, lessons, features, "right", wrong FROM queue.lessons'
# One teacher at a time; readers go on reading.
LOCK = "LOCK TABLE queue.lessons IN SHARE ROW EXCLUSIVE MODE"
SAVE = """
INSERT INTO queue.lessons (type, lessons, features, "right", wrong, updated_at)
VALUES (:type, :lessons, CAST(:features AS jsonb), :right, :wrong, :now)
ON CONFLICT (type) DO UPDATE SET lessons = EXCLUDED.lessons, features = EXCLUDED.features,
    "right" = EXCLUDED."right", wrong = EXCLUDED.wrong, updated_at = EXCLUDED.updated_at
"""


async def load(tx: Transaction, *, for_update: bool = False) -> Classifier:
    """Everything that was learned; locked until the commit when it is to be taught."""
    if for_update:
        await tx.run(LOCK)
    return from_rows(
        TypeCounts(
            row.type,
            row.examples,
            {int(number): value for number, value in row.features.items()},
            row.correct,
            row.incorrect,
        )
        for row in await tx.all(ALL)
    )


async def save(tx: Transaction, rows: Sequence[TypeCounts]) -> None:
    """Writes the types that changed."""
    for row in rows:
        await tx.run(
            SAVE,
            type=row.type,
            examples=row.examples,
            features=json.dumps(row.features),
            correct=row.correct,
            incorrect=row.incorrect,
            now=tx.now,
        )
