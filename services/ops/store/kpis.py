"""The figures of a window, computed where the rows are.

Rule: an incident counts once, however often it came back: for opening and detection in the window in which it opened
first, for repair and resolution in the one in which it ended last, and how often it came back in the one in which it
did so last. An attempt counts in the window in which it ended, a decision in the one in which it was made. Sums of
nothing are nothing: averages and percentiles of no rows are NULL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.ops.kpis import DETECT_TARGET, REPAIR_TARGET, CalibrationBin, Durations, Ratio, Window, calibration_bins

# An incident that is known to be opened began then.
STARTED = "i.start_time >= :start AND i.start_time < :end"
ENDED = "i.end_time >= :start AND i.end_time < :end"
WHOSE = "(CAST(:merchant AS text) = '' OR {alias}.merchant = :merchant)"
OF_INCIDENTS, OF_ATTEMPTS = WHOSE.format(alias="i"), WHOSE.format(alias="a")
DURATIONS = """
count(*) AS cases, avg(seconds) AS mean, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
"""
SECONDS = "greatest(0, CAST(extract(epoch FROM {span}) AS double precision)) AS seconds"
DETECTED = f"""
SELECT {DURATIONS} FROM (
    SELECT {SECONDS.format(span="i.open_time - i.first_bad_beat_time")} FROM ops.incidents i
    WHERE {STARTED} AND i.open_time IS NOT NULL AND i.first_bad_beat_time IS NOT NULL AND {OF_INCIDENTS}) s
"""
REPAIRED = f"""
SELECT {DURATIONS} FROM (
    SELECT {SECONDS.format(span="i.mitigate_time - i.open_time")} FROM ops.incidents i
    WHERE i.state = 'mitigated' AND i.open_time IS NOT NULL AND {ENDED} AND {OF_INCIDENTS}) s
"""
OPENED_BY = f"""
SELECT i.severity, i.type, count(*) AS count FROM ops.incidents i
WHERE {STARTED} AND {OF_INCIDENTS} GROUP BY i.severity, i.type
"""
REOPENED = f"""
SELECT i.type, count(*) AS count, sum(i.reopened) AS reopenings FROM ops.incidents i
WHERE i.reopen_time >= :start AND i.reopen_time < :end AND {OF_INCIDENTS} GROUP BY i.type
"""
# An end is automatic when no person was asked and none took a hand in it.
RESOLVED = f"""
SELECT i.state, count(*) AS count,
       count(*) FILTER (WHERE i.escalate_time IS NULL AND NOT i.manual) AS automatic
FROM ops.incidents i WHERE {ENDED} AND {OF_INCIDENTS} GROUP BY i.state
"""
OUTCOMES = f"""
SELECT a.state, count(*) AS count FROM ops.attempts a
WHERE a.end_time >= :start AND a.end_time < :end AND a.decision <> '' AND NOT a.by_operator AND {OF_ATTEMPTS}
GROUP BY a.state
"""
CALIBRATION = f"""
SELECT d.decile, count(*) AS decisions, avg(d.confidence) AS predicted,
       count(*) FILTER (WHERE a.state IN ('success', 'failed', 'rolled_back', 'rollback_failed')) AS tried,
       count(*) FILTER (WHERE a.state = 'success') AS succeeded
FROM ops.decisions d LEFT JOIN ops.attempts a ON a.decision = d.decision AND a.decision <> ''
WHERE d.create_time >= :start AND d.create_time < :end AND d.action NOT IN ('notify_ops', 'no_action')
    AND {WHOSE.format(alias="d")}
GROUP BY d.decile
"""
INTERVENTIONS = f"""
SELECT n.fact, count(*) AS count FROM ops.interventions n
WHERE n.time >= :start AND n.time < :end AND {WHOSE.format(alias="n")} GROUP BY n.fact
"""
REPORTS = f"""
SELECT count(*) FILTER (WHERE r.report_time >= :start AND r.report_time < :end) AS reported,
       count(*) FILTER (WHERE r.resolve_time >= :start AND r.resolve_time < :end) AS resolved,
       count(*) FILTER (WHERE r.escalate_time >= :start AND r.escalate_time < :end) AS escalated,
       avg(r.open_seconds) FILTER (WHERE r.resolve_time >= :start AND r.resolve_time < :end) AS mean
FROM ops.error_reports r
WHERE ((r.report_time >= :start AND r.report_time < :end) OR (r.resolve_time >= :start AND r.resolve_time < :end)
    OR (r.escalate_time >= :start AND r.escalate_time < :end)) AND {WHOSE.format(alias="r")}
"""
TASKS = """
SELECT coalesce(sum(completed), 0) AS completed, coalesce(sum(retrying), 0) AS retrying,
       coalesce(sum(failed), 0) AS failed
FROM ops.task_outcomes WHERE time >= :start AND time < :end
"""
UPTIME = """
SELECT service, sum(probes) AS probes, sum(answered) AS answered, count(*) AS minutes
FROM ops.uptime_probes WHERE minute >= :start AND minute < :end GROUP BY service ORDER BY service
"""
BIN = "date_bin(:step, {column}, :start)"
OPENED = f"""
SELECT {BIN.format(column="i.start_time")} AS time, count(*) AS count FROM ops.incidents i
WHERE {STARTED} AND {OF_INCIDENTS} GROUP BY 1
"""
CLOSED = f"""
SELECT {BIN.format(column="i.end_time")} AS time, i.state, count(*) AS count,
       avg(CAST(extract(epoch FROM i.mitigate_time - i.open_time) AS double precision)) AS repair
FROM ops.incidents i WHERE {ENDED} AND {OF_INCIDENTS} GROUP BY 1, 2
"""
ATTEMPTED = f"""
SELECT {BIN.format(column="a.end_time")} AS time, a.state, count(*) AS count FROM ops.attempts a
WHERE a.end_time >= :start AND a.end_time < :end AND a.decision <> '' AND NOT a.by_operator AND {OF_ATTEMPTS}
GROUP BY 1, 2
"""


class KpiQueries:
    """Asks for the figures of one window, for one merchant or for all."""

    def __init__(self, tx: Transaction, window: Window, merchant: str) -> None:
        self.tx = tx
        self.window = window
        self.merchant = merchant

    async def _rows(self, sql: str, **more: Any) -> Sequence[Any]:
        return await self.tx.all(sql, start=self.window.start, end=self.window.end, **more)

    async def _of_merchant(self, sql: str, **more: Any) -> Sequence[Any]:
        return await self._rows(sql, merchant=self.merchant, **more)

    async def detected(self) -> Durations:
        """First bad beat → incident opened."""
        return _durations((await self._of_merchant(DETECTED))[0], DETECT_TARGET)

    async def repaired(self) -> Durations:
        """Incident opened → healed by an attempt."""
        return _durations((await self._of_merchant(REPAIRED))[0], REPAIR_TARGET)

    async def opened(self) -> tuple[dict[int, int], dict[str, int]]:
        """Incidents that began, by severity (0 to 4) and by type."""
        severities: dict[int, int] = {}
        types: dict[str, int] = {}
        for row in await self._of_merchant(OPENED_BY):
            severities[row.severity] = severities.get(row.severity, 0) + row.count
            types[row.type] = types.get(row.type, 0) + row.count
        return severities, types

    async def reopened(self) -> tuple[dict[str, int], int]:
        """Incidents that came back, by type, and how often all of them did."""
        rows = await self._of_merchant(REOPENED)
        return {row.type: row.count for row in rows}, sum(row.reopenings for row in rows)

    async def resolved(self) -> dict[str, tuple[int, int]]:
        """Incidents that ended, by state: how many, and how many of them without people."""
        return {row.state: (row.count, row.automatic) for row in await self._of_merchant(RESOLVED)}

    async def outcomes(self) -> dict[str, int]:
        """Attempts of automation that ended, by state."""
        return {row.state: row.count for row in await self._of_merchant(OUTCOMES)}

    async def calibration(self) -> list[CalibrationBin]:
        """What was predicted and what was observed, by tenths."""
        rows = await self._of_merchant(CALIBRATION)
        return calibration_bins([(row.decile, row.decisions, row.predicted, row.tried, row.succeeded) for row in rows])

    async def interventions(self) -> dict[str, int]:
        """What people did, by fact."""
        return {row.fact: row.count for row in await self._of_merchant(INTERVENTIONS)}

    async def reports(self) -> Any:
        """Error reports: reported, resolved, escalated, mean seconds until resolved."""
        return (await self._of_merchant(REPORTS))[0]

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
        for row in await self._of_merchant(OPENED, step=step):
            found.setdefault(row.time, {})["opened"] = row.count
        for row in await self._of_merchant(CLOSED, step=step):
            point = found.setdefault(row.time, {})
            point[row.state] = row.count
            if row.state == "mitigated" and row.repair is not None:
                point["repair"] = row.repair
        for row in await self._of_merchant(ATTEMPTED, step=step):
            found.setdefault(row.time, {})[f"attempt {row.state}"] = row.count
        return found


def _durations(row: Any, target: float) -> Durations:
    return Durations(row.cases, row.mean, row.p50, row.p95, target)


def automatic(resolved: Mapping[str, tuple[int, int]]) -> Ratio:
    """The incidents that ended without people, of all that ended."""
    return Ratio(sum(automatic for _, automatic in resolved.values()), sum(count for count, _ in resolved.values()))
