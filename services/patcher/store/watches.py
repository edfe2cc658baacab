"""Rows of watches: what was committed on low evidence, and how its watch ended."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.patcher.evidence import Sums
from services.patcher.watch import State, Watch

NAMES = tuple(field.name for field in fields(Watch))
COLUMNS = ", ".join(NAMES)
INSERT = f"""
INSERT INTO patcher.attempt_watches ({COLUMNS})
VALUES ({", ".join("CAST(:before AS jsonb)" if name == "before" else f":{name}" for name in NAMES)})
ON CONFLICT DO NOTHING
"""
SAVE = """
UPDATE patcher.attempt_watches SET generation = :generation, look_time = :look_time, state = :state, reason = :reason,
    before = CAST(:before AS jsonb), end_time = :end_time
WHERE attempt = :attempt
"""
DUE = f"""
SELECT {COLUMNS} FROM patcher.attempt_watches WHERE end_time IS NULL AND look_time <= :now
ORDER BY look_time LIMIT :limit
"""
OF = f"SELECT {COLUMNS} FROM patcher.attempt_watches WHERE attempt = ANY (CAST(:attempts AS text[]))"
LOCK = f"SELECT {COLUMNS} FROM patcher.attempt_watches WHERE attempt = :attempt FOR UPDATE"


async def insert(tx: Transaction, watch: Watch) -> None:
    """Saves a watch that begins; an attempt has one at most."""
    await tx.run(INSERT, **_values(watch))


async def save(tx: Transaction, watch: Watch) -> None:
    """Writes what may have changed."""
    kept = ("attempt", "generation", "look_time", "state", "reason", "before", "end_time")
    await tx.run(SAVE, **{name: value for name, value in _values(watch).items() if name in kept})


async def due(tx: Transaction, now: datetime, limit: int) -> list[Watch]:
    """Watches whose next look is due, the longest overdue first."""
    return [_watch(row) for row in await tx.all(DUE, now=now, limit=limit)]


async def lock(tx: Transaction, attempt: str) -> Watch | None:
    """The watch of an attempt, locked until the end of the transaction."""
    row = await tx.first(LOCK, attempt=attempt)
    return _watch(row) if row else None


async def of_attempts(tx: Transaction, attempts: Sequence[str]) -> dict[str, Watch]:
    """The watches of attempts, by attempt; most have none."""
    rows = await tx.all(OF, attempts=list(attempts)) if attempts else []
    return {row.attempt: _watch(row) for row in rows}


def _values(watch: Watch) -> dict[str, Any]:
    before = json.dumps(asdict(watch.before)) if watch.before else None
    return {name: getattr(watch, name) for name in NAMES} | {"state": watch.state.value, "before": before}


def _watch(row: Any) -> Watch:
    values = {name: getattr(row, name) for name in NAMES}
    return Watch(**values | {"state": State(row.state), "before": Sums(**row.before) if row.before else None})
