"""Rows of what was done about reports; only ever added.

Rule: entries are numbered per report by the report's own count. A partitioned table cannot promise that a number is
there once, so the row lock on the report does: whoever adds an entry has just raised the count under that lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.database import Transaction

COLUMNS = """id, report, number, merchant, task, strategy, worker, method, success, outcome, details, tools, seconds,
        create_time, actor"""
ADD = f"""
WITH given AS (
    SELECT * FROM unnest(CAST(:reports AS uuid[]), CAST(:tasks AS uuid[]), CAST(:strategies AS text[]),
        CAST(:workers AS text[]), CAST(:methods AS text[])) AS g (report, task, strategy, worker, method)),
numbered AS (
    UPDATE queue.reports r SET history_count = r.history_count + 1 FROM given g WHERE r.id = g.report
    RETURNING r.history_count, r.merchant, g.report, g.task, g.strategy, g.worker, g.method)
INSERT INTO queue.history ({COLUMNS})
SELECT queue.uuid_v7(:now), report, history_count, merchant, task, strategy, worker, method, :success, :outcome,
    :details, '{{}}', 0, :now, :actor
FROM numbered
"""
OF_REPORT = "SELECT * FROM queue.history WHERE report = CAST(:report AS uuid) ORDER BY number DESC LIMIT :limit"
OF_REPORTS = """
SELECT h.* FROM unnest(CAST(:reports AS uuid[])) AS g (report)
CROSS JOIN LATERAL (
    SELECT * FROM queue.history WHERE report = g.report ORDER BY number DESC LIMIT :limit) h
ORDER BY h.report, h.number
"""
MOST = 100


async def add(
    tx: Transaction,
    rows: Sequence[tuple[str, str | None, str, str, str]],
    *,
    success: bool,
    outcome: str,
    actor: str,
    details: str = "{}",
) -> None:
    """Adds an entry to each report: (report, task, strategy, worker, method)."""
    reports, tasks, strategies, workers, methods = (list(column) for column in zip(*rows, strict=True))
    await tx.run(
        ADD,
        reports=reports, tasks=tasks, strategies=strategies, workers=workers, methods=methods,
        success=success, outcome=outcome, actor=actor, details=details, now=tx.now,
    )  # fmt: skip


async def of_report(tx: Transaction, report: str) -> list[Any]:
    """The last hundred entries of a report, in order."""
    return list(reversed(await tx.all(OF_REPORT, report=report, limit=MOST)))


async def of_reports(tx: Transaction, reports: Sequence[str], limit: int) -> dict[str, list[Any]]:
    """The last entries of each report, in order."""
    found: dict[str, list[Any]] = {}
    for row in await tx.all(OF_REPORTS, reports=list(reports), limit=limit):
        found.setdefault(str(row.report), []).append(row)
    return found
