"""What plugins were switched to, and how each of it ended: the first final word of the agent stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.database import Transaction
from services.ingest.command_lifecycle import Command, Kind, Outcome

FINAL_OUTCOME = """
SELECT final_outcome FROM ingest.generations
WHERE plugin = CAST(:plugin AS uuid) AND generation = :generation FOR UPDATE
"""
TAKEN_BACK = """
SELECT generation FROM ingest.generations WHERE plugin = CAST(:plugin AS uuid) AND final_outcome = :reverted
ORDER BY generation DESC LIMIT 1000
"""
SET_FINAL = """
INSERT INTO ingest.generations (plugin, merchant, generation, attempt, final_outcome, final_time)
VALUES (CAST(:plugin AS uuid), :merchant, :generation, :attempt, :final, :now)
ON CONFLICT (plugin, generation) DO UPDATE SET final_outcome = :final, final_time = :now
"""
UNCOMMITTED = """
SELECT EXISTS (SELECT 1 FROM ingest.receipts r JOIN ingest.commands c ON c.id = r.command
               JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
               WHERE c.plugin = CAST(:plugin AS uuid) AND r.outcome = 1 AND g.final_outcome IS NULL
                 AND c.deadline_time > :since)
"""
RUNNING = """
SELECT g.generation, c.kind, c.release, c.digest FROM ingest.generations g
JOIN ingest.commands c ON c.attempt = g.attempt AND c.plugin = g.plugin AND c.generation = g.generation
JOIN ingest.receipts r ON r.command = c.id AND r.outcome = 1
WHERE g.plugin = CAST(:plugin AS uuid) AND g.final_outcome IS DISTINCT FROM 3 AND c.kind IN (1, 3, 4)
ORDER BY g.generation DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A generation that was switched to, by which kind of command, with its release and digest."""

    generation: int
    kind: Kind
    release: str
    digest: str


async def taken_back(tx: Transaction, plugin: str) -> frozenset[int]:
    """Generations of a plugin that its agent wrote REVERTED for."""
    rows = await tx.all(TAKEN_BACK, plugin=plugin, reverted=int(Outcome.REVERTED))
    return frozenset(row.generation for row in rows)


async def final_outcome(tx: Transaction, plugin: str, generation: int) -> Outcome | None:
    """The final outcome of a generation so far, locked until the commit."""
    found = await tx.value(FINAL_OUTCOME, plugin=plugin, generation=generation)
    return None if found is None else Outcome(found)


async def end(tx: Transaction, command: Command, final: Outcome) -> None:
    """Writes how the generation of a command ended."""
    own = {name: getattr(command, name) for name in ("plugin", "merchant", "generation", "attempt")}
    await tx.run(SET_FINAL, final=int(final), now=tx.now, **own)


async def in_probation(tx: Transaction, plugin: str, since: datetime) -> bool:
    """Whether a plugin has switched and its final outcome is still to come."""
    return bool(await tx.value(UNCOMMITTED, plugin=plugin, since=since))


async def running(tx: Transaction, plugin: str) -> Running | None:
    """What a plugin reported last as switched to, and did not roll back; None when it never switched."""
    row = await tx.first(RUNNING, plugin=plugin)
    return None if row is None else Running(row.generation, Kind(row.kind), row.release, row.digest)
