"""The control group of a wave: plugins of the package that have not been switched, and what became of them.

Rule: a plugin counts once it was watched for as long as a probation, or when it broke; what was counted stays counted.
"""

from collections.abc import Mapping
from datetime import datetime

from libs.common.database import Transaction
from services.patcher.rollout import Counts

WATCH = """
INSERT INTO patcher.rollout_control_group (rollout, wave, plugin, merchant, begin_time)
SELECT :rollout, :wave, plugin, merchant, :now
FROM unnest(CAST(:plugins AS text[]), CAST(:merchants AS text[])) AS sample (plugin, merchant)
ON CONFLICT DO NOTHING
"""
BREAK = """
UPDATE patcher.rollout_control_group SET broken = true
WHERE rollout = :rollout AND wave = :wave AND NOT broken AND plugin = ANY (CAST(:plugins AS text[]))
"""
WATCHED = """
UPDATE patcher.rollout_control_group SET watched = true
WHERE rollout = :rollout AND wave = :wave AND NOT watched AND begin_time <= :before
"""
# Switched, or gone, before anything could be said of it.
LEAVE = """
DELETE FROM patcher.rollout_control_group
WHERE rollout = :rollout AND wave = :wave AND NOT watched AND NOT broken
  AND NOT plugin = ANY (CAST(:plugins AS text[]))
"""
COUNT = """
SELECT count(*) FILTER (WHERE watched OR broken) AS exposed, count(*) FILTER (WHERE broken) AS broken
FROM patcher.rollout_control_group WHERE rollout = :rollout AND wave = :wave
"""

FORGET = "DELETE FROM patcher.rollout_control_group WHERE rollout = :rollout"


async def watch(
    tx: Transaction, rollout: str, wave: int, *, well: Mapping[str, str], ill: Mapping[str, str], before: datetime
) -> Counts:
    """Brings the control group up to date; `well` and `ill` map plugins to merchants, `before` is a probation ago."""
    where = {"rollout": rollout, "wave": wave}
    await tx.run(BREAK, **where, plugins=list(ill))
    await tx.run(WATCHED, **where, before=before)
    await tx.run(LEAVE, **where, plugins=[*well, *ill])
    await tx.run(WATCH, **where, plugins=list(well), merchants=list(well.values()), now=tx.now)
    row = await tx.first(COUNT, **where)
    assert row is not None
    return Counts(row.exposed, row.broken)


async def forget(tx: Transaction, rollout: str) -> None:
    """Nobody will compare any more."""
    await tx.run(FORGET, rollout=rollout)
