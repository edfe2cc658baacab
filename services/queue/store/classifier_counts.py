"""Rows of what was learned of each type ⇄ dataclasses."""

from __future__ import annotations

import json
from collections.abc import Sequence

from libs.common.database import Transaction
from services.queue.classifier import Counts, Model, model

ALL = 'SELECT type, lessons, features, "right", wrong FROM queue.lessons'
# One teacher at a time; readers go on reading.
LOCK = "LOCK TABLE queue.lessons IN SHARE ROW EXCLUSIVE MODE"
SAVE = """
INSERT INTO queue.lessons (type, lessons, features, "right", wrong, updated_at)
VALUES (:type, :lessons, CAST(:features AS jsonb), :right, :wrong, :now)
ON CONFLICT (type) DO UPDATE SET lessons = EXCLUDED.lessons, features = EXCLUDED.features,
    "right" = EXCLUDED."right", wrong = EXCLUDED.wrong, updated_at = EXCLUDED.updated_at
"""


async def known(tx: Transaction, *, to_teach: bool = False) -> Model:
    """Everything that was learned; locked until the commit when it is to be taught."""
    if to_teach:
        await tx.run(LOCK)
    return model(
        Counts(
            row.type, row.lessons, {int(number): value for number, value in row.features.items()}, row.right, row.wrong
        )
        for row in await tx.all(ALL)
    )


async def save(tx: Transaction, rows: Sequence[Counts]) -> None:
    """Writes the types that changed."""
    for row in rows:
        await tx.run(
            SAVE,
            type=row.type,
            lessons=row.lessons,
            features=json.dumps(row.features),
            right=row.right,
            wrong=row.wrong,
            now=tx.now,
        )
