"""Slots: one row for each attempt in flight, so that there are never more than the policy allows.

Rule: a slot is taken under the package's lock, counted in the same transaction, and freed in the transaction that ends
its holder. What a crash left behind a sweep frees.
"""

from libs.common.database import Transaction

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('prunella slots of ' || :package, 0))"
HELD = "SELECT 1 FROM patcher.slots WHERE holder = :holder"
TAKEN = "SELECT count(*) FROM patcher.slots WHERE package = :package"
TAKE = """
INSERT INTO patcher.slots (holder, merchant, package, take_time) VALUES (:holder, :merchant, :package, :now)
"""
FREE = "DELETE FROM patcher.slots WHERE holder = :holder RETURNING package"
# The end of an attempt frees its slot in its own transaction; only what somebody broke by hand is found here.
LEFT = """
DELETE FROM patcher.slots WHERE holder IN (
    SELECT s.holder FROM patcher.slots s LEFT JOIN patcher.attempts a ON a.id = s.holder
    WHERE s.take_time < :before AND (a.id IS NULL OR a.end_time IS NOT NULL
        OR a.state IN ('pending', 'staging', 'staged', 'awaiting_approval'))
    LIMIT 500 FOR UPDATE OF s SKIP LOCKED)
RETURNING package
"""


async def take(tx: Transaction, package: str, holder: str, merchant: str, limit: int) -> int | None:
    """Takes a slot unless `limit` are taken; None when it is held now, else how many others hold one."""
    await tx.run(LOCK, package=package)
    if await tx.value(HELD, holder=holder):
        return None
    taken = int(await tx.value(TAKEN, package=package))
    if taken >= limit:
        return taken
    await tx.run(TAKE, holder=holder, merchant=merchant, package=package, now=tx.now)
    return None


async def free(tx: Transaction, holder: str) -> str | None:
    """Frees the holder's slot; its package, None when there was none."""
    package = await tx.value(FREE, holder=holder)
    return None if package is None else str(package)


async def reclaim(tx: Transaction, before: object) -> int:
    """Frees slots, taken before a moment, whose holder is over or gone; how many."""
    return len(await tx.all(LEFT, before=before))


async def taken(tx: Transaction) -> dict[str, int]:
    """How many slots each package has taken."""
    rows = await tx.all("SELECT package, count(*) AS taken FROM patcher.slots GROUP BY package")
    return {row.package: row.taken for row in rows}
