"""Rows of the classifier, one for each type ⇄ dataclasses."""

from __future__ import annotations

import json
from collections.abc import Sequence

from libs.common.database import Transaction
from services.queue.classifier import Classifier, TypeCounts, from_rows

ALL = "SELECT type, examples, features, correct, incorrect FROM queue.classifier_counts"
# One trainer at a time; readers go on reading.
LOCK = "LOCK TABLE queue.classifier_counts IN SHARE ROW EXCLUSIVE MODE"
SAVE = """
INSERT INTO queue.classifier_counts (type, examples, features, correct, incorrect, update_time)
VALUES (:type, :examples, CAST(:features AS jsonb), :correct, :incorrect, :now)
ON CONFLICT (type) DO UPDATE SET examples = EXCLUDED.examples, features = EXCLUDED.features,
    correct = EXCLUDED.correct, incorrect = EXCLUDED.incorrect, update_time = EXCLUDED.update_time
"""


async def load(tx: Transaction, *, for_update: bool = False) -> Classifier:
    """The classifier; locked until the commit when it is to be trained."""
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
