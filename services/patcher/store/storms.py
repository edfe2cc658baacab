"""Storms as ingest told them: while one is on, automation for its package and type pauses.

Rule: facts come in any order and more than once; a storm that was told to have ended never begins again.
"""

from libs.common.database import Transaction

STARTED = """
INSERT INTO patcher.storms (storm, package, type, reason, begin_time)
VALUES (:storm, :package, :type, :reason, :now) ON CONFLICT (storm) DO NOTHING
"""
ENDED = """
INSERT INTO patcher.storms (storm, package, type, reason, end_time)
VALUES (:storm, :package, :type, :reason, :now)
ON CONFLICT (storm) DO UPDATE SET end_time = coalesce(patcher.storms.end_time, :now)
"""
ON = "SELECT package, type, reason FROM patcher.storms WHERE end_time IS NULL ORDER BY storm LIMIT 1000"
STILL_ON = "SELECT 1 FROM patcher.storms WHERE storm = :storm AND end_time IS NULL"


async def started(tx: Transaction, storm: str, package: str, kind: str, reason: str) -> bool:
    """Notes that a storm is on; False when it has ended already."""
    await tx.run(STARTED, storm=storm, package=package, type=kind, reason=reason, now=tx.now)
    return bool(await tx.value(STILL_ON, storm=storm))


async def ended(tx: Transaction, storm: str, package: str, kind: str, reason: str) -> None:
    """Notes that a storm is over."""
    await tx.run(ENDED, storm=storm, package=package, type=kind, reason=reason, now=tx.now)


async def active(tx: Transaction) -> dict[tuple[str, str], str]:
    """Every (package, type) for which automation pauses, and why."""
    return {(row.package, row.type): row.reason for row in await tx.all(ON)}
