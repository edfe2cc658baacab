"""How many active plugins a package has, as ingest last said; shares of a fleet are counted from it."""

from datetime import timedelta

from libs.common.database import Transaction

MAX_AGE = timedelta(seconds=10)
PUT = """
INSERT INTO patcher.fleets (package, plugins, update_time) VALUES (:package, :plugins, :now)
ON CONFLICT (package) DO UPDATE SET plugins = :plugins, update_time = :now
WHERE patcher.fleets.plugins <> :plugins OR patcher.fleets.update_time < :stale
"""
STALE = """
SELECT DISTINCT a.package FROM patcher.attempts a LEFT JOIN patcher.fleets f ON f.package = a.package
WHERE a.state NOT IN ('success', 'rolled_back', 'rollback_failed', 'failed', 'cancelled', 'refused')
  AND (f.package IS NULL OR f.update_time < :stale)
LIMIT 100
"""


async def put(tx: Transaction, package: str, plugins: int) -> None:
    """Keeps what ingest said."""
    await tx.run(PUT, package=package, plugins=plugins, now=tx.now, stale=tx.now - MAX_AGE / 2)


async def stale(tx: Transaction) -> list[str]:
    """Packages with live attempts whose fleet was last counted too long ago."""
    return [row.package for row in await tx.all(STALE, stale=tx.now - MAX_AGE)]


async def sizes(tx: Transaction) -> dict[str, int]:
    """Every fleet's size."""
    return {row.package: row.plugins for row in await tx.all("SELECT package, plugins FROM patcher.fleets")}
