"""The figures of a window, computed where the rows are.

Rule: an incident counts for opening and detection in the window in which it was opened, for repair and resolution in
the one in which it ended; an attempt in the one in which it ended; a decision in the one in which it was made. Sums of
nothing are nothing: averages and percentiles of no rows are NULL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.kpis import DETECT_TARGET, REPAIR_TARGET, Bin, Spread, Window, bins

# An incident that is known to be opened began then.
BEGAN = "i.began_at >= :start AND i.began_at < :end"
ENDED = "i.ended_at >= :start AND i.ended_at < :end"
WHOSE = "(CAST(:merchant AS text) = '' OR {alias}.merchant = :merchant)"
OF_INCIDENTS, OF_ATTEMPTS = WHOSE.format(alias="i"), WHOSE.format(alias="a")
SPREAD = """
count(*) AS cases, avg(seconds) AS mean, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
"""
SECONDS = "greatest(0, CAST(extract(epoch FROM {span}) AS double precision)) AS seconds"
DETECTED = f"""
SELECT {SPREAD} FROM (
    SELECT {SECONDS.format(span="i.opened_at - i.first_bad_at")} FROM ops.incidents i
    WHERE {BEGAN} AND i.opened_at IS NOT NULL AND i.first_bad_at IS NOT NULL AND {OF_INCIDENTS}) s
"""
REPAIRED = f"""
SELECT {SPREAD} FROM (
    SELECT {SECONDS.format(span="i.mitigated_at - i.opened_at")} FROM ops.incidents i
    WHERE i.state = 'mitigated' AND i.opened_at IS NOT NULL AND {ENDED} AND {OF_INCIDENTS}) s
"""
BROKEN = f"""
SELECT i.severity, i.type, count(*) AS count FROM ops.incidents i
WHERE {BEGAN} AND {OF_INCIDENTS} GROUP BY i.severity, i.type
"""
# An end is automatic when no person was asked and none took a hand in it.
RESOLVED = f"""
SELECT i.state, count(*) AS count,
       count(*) FILTER (WHERE i.escalated_at IS NULL AND NOT i.manual) AS alone
FROM ops.incidents i WHERE {ENDED} AND {OF_INCIDENTS} GROUP BY i.state
"""
OUTCOMES = f"""
SELECT a.state, count(*) AS count FROM ops.attempts a
WHERE a.ended_at >= :start AND a.ended_at < :end AND a.decision <> '' AND NOT a.by_person AND {OF_ATTEMPTS}
GROUP BY a.state
"""
CONFIDENCE = f"""
SELECT d.decile, count(*) AS decisions, avg(d.confidence) AS stated,
       count(*) FILTER (WHERE a.state IN ('success', 'failed', 'rolled_back', 'rollback_failed')) AS tried,
       count(*) FILTER (WHERE a.state = 'success') AS succeeded
FROM ops.decisions d LEFT JOIN ops.attempts a ON a.decision = d.decision AND a.decision <> ''
WHERE d.made_at >= :start AND d.made_at < :end AND d.action NOT IN ('notify_ops', 'no_action')
    AND {WHOSE.format(alias="d")}
GROUP BY d.decile
"""
INTERVENTIONS = f"""
SELECT n.fact, count(*) AS count FROM ops.interventions n
WHERE n.at >= :start AND n.at < :end AND {WHOSE.format(alias="n")} GROUP BY n.fact
"""
REPORTS = f"""
SELECT count(*) FILTER (WHERE r.first_at >= :start AND r.first_at < :end) AS reported,
       count(*) FILTER (WHERE r.resolved_at >= :start AND r.resolved_at < :end) AS resolved,
       count(*) FILTER (WHERE r.escalated_at >= :start AND r.escalated_at < :end) AS escalated,
       avg(r.open_seconds) FILTER (WHERE r.resolved_at >= :start AND r.resolved_at < :end) AS mean
FROM ops.reports r
WHERE ((r.first_at >= :start AND r.first_at < :end) OR (r.resolved_at >= :start AND r.resolved_at < :end)
    OR (r.escalated_at >= :start AND r.escalated_at < :end)) AND {WHOSE.format(alias="r")}
"""
TASKS = """
SELECT coalesce(sum(completed), 0) AS completed, coalesce(sum(retrying), 0) AS retrying,
       coalesce(sum(failed), 0) AS failed
FROM ops.task_ends WHERE at >= :start AND at < :end
"""
UPTIME = """
SELECT service, sum(probes) AS probes, sum(answered) AS answered, count(*) AS minutes
FROM ops.probes WHERE minute >= :start AND minute < :end GROUP BY service ORDER BY service
"""
BIN = "date_bin(:step, {column}, :start)"
OPENINGS = f"""
SELECT {BIN.format(column="i.began_at")} AS at, count(*) AS count FROM ops.incidents i
WHERE {BEGAN} AND {OF_INCIDENTS} GROUP BY 1
"""
ENDINGS = f"""
SELECT {BIN.format(column="i.ended_at")} AS at, i.state, count(*) AS count,
       avg(CAST(extract(epoch FROM i.mitigated_at - i.opened_at) AS double precision)) AS repair
FROM ops.incidents i WHERE {ENDED} AND {OF_INCIDENTS} GROUP BY 1, 2
"""
TRIES = f"""
SELECT {BIN.format(column="a.ended_at")} AS at, a.state, count(*) AS count FROM ops.attempts a
WHERE a.ended_at >= :start AND a.ended_at < :end AND a.decision <> '' AND NOT a.by_person AND {OF_ATTEMPTS}
GROUP BY 1, 2
"""


class Figures:
    """Asks for the figures of one window, for one merchant or for all."""

    def __init__(self, tx: Transaction, window: Window, merchant: str) -> None:
        self.tx = tx
        self.window = window
        self.merchant = merchant

    async def _rows(self, sql: str, **more: Any) -> Sequence[Any]:
        return await self.tx.all(sql, start=self.window.start, end=self.window.end, **more)

    async def _mine(self, sql: str, **more: Any) -> Sequence[Any]:
        return await self._rows(sql, merchant=self.merchant, **more)

    async def detected(self) -> Spread:
        """First bad beat → incident opened."""
        return _spread((await self._mine(DETECTED))[0], DETECT_TARGET)

    async def repaired(self) -> Spread:
        """Incident opened → healed by an attempt."""
        return _spread((await self._mine(REPAIRED))[0], REPAIR_TARGET)

    async def broken(self) -> tuple[dict[int, int], dict[str, int]]:
        """Incidents that began, by severity (0 to 4) and by type."""
        severities: dict[int, int] = {}
        types: dict[str, int] = {}
        for row in await self._mine(BROKEN):
            severities[row.severity] = severities.get(row.severity, 0) + row.count
            types[row.type] = types.get(row.type, 0) + row.count
        return severities, types

    async def resolved(self) -> dict[str, tuple[int, int]]:
        """Incidents that ended, by state: how many, and how many of them without people."""
        return {row.state: (row.count, row.alone) for row in await self._mine(RESOLVED)}

    async def outcomes(self) -> dict[str, int]:
        """Attempts of automation that ended, by state."""
        return {row.state: row.count for row in await self._mine(OUTCOMES)}

    async def confidence(self) -> list[Bin]:
        """What was stated, and what was achieved, by tenths."""
        rows = await self._mine(CONFIDENCE)
        return bins([(row.decile, row.decisions, row.stated, row.tried, row.succeeded) for row in rows])

    async def interventions(self) -> dict[str, int]:
        """What people did, by fact."""
        return {row.fact: row.count for row in await self._mine(INTERVENTIONS)}

    async def reports(self) -> Any:
        """Error reports: reported, resolved, escalated, mean seconds until resolved."""
        return (await self._mine(REPORTS))[0]

    async def tasks(self) -> Any:
        """Tries of tasks that ended: completed, retrying, failed. Tasks have no merchant."""
        return (await self._rows(TASKS))[0]

    async def uptime(self) -> Sequence[Any]:
        """Probes of each service: how many, how many were answered, in how many minutes."""
        return await self._rows(UPTIME)

    async def points(self) -> dict[datetime, dict[str, float]]:
        """What happened when, for charts: counts by word, and the mean repair in seconds where there was one."""
        step: timedelta = self.window.step
        found: dict[datetime, dict[str, float]] = {}
        for row in await self._mine(OPENINGS, step=step):
            found.setdefault(row.at, {})["opened"] = row.count
        for row in await self._mine(ENDINGS, step=step):
            point = found.setdefault(row.at, {})
            point[row.state] = row.count
            if row.state == "mitigated" and row.repair is not None:
                point["repair"] = row.repair
        for row in await self._mine(TRIES, step=step):
            found.setdefault(row.at, {})[f"attempt {row.state}"] = row.count
        return found


def _spread(row: Any, target: float) -> Spread:
    return Spread(row.cases, row.mean, row.p50, row.p95, target)


def merged(counts: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """How many ended, and how many of them without people."""
    return sum(count for count, _ in counts.values()), sum(alone for _, alone in counts.values())
