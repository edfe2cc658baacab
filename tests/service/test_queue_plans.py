"""The hot statements of queue go by index, as the service plans them: once, whatever the parameters are.

50,000 tasks and reports stand for a million; a plan that is generic and by index is the same for both.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from deploy.local.testing import BackingServices
from libs.common.clock import SystemClock
from libs.common.database import Database, numbered
from services.queue.service import PLANNER
from services.queue.store import history, report_transitions, reports, state_counts, strategies, task_leases, tasks

ROWS = 50_000
SEED = (
    """
    INSERT INTO queue.reports (id, plugin, merchant, package, release, label, fingerprint, state, type,
        reported_severity, source, counter, counter_value, occurrences, first_seen_time, last_seen_time, open_time,
        create_time, traceparent)
    SELECT CAST(lpad(to_hex(i), 32, '0') AS uuid), 'plugin-' || i % 5000, 'm', 'shop', '1.0', '', md5(CAST(i AS text)),
        'in_progress', 'network', '', 'agent', 'c', 1, 1, now(), now() - i * interval '1 second', now(), now(), ''
    FROM generate_series(1, :rows) i
    """,
    """
    INSERT INTO queue.report_details (report, merchant, type, module, message, stack, context, grouping)
    SELECT id, merchant, 'T', '', 'm', '', '{}', '{}' FROM queue.reports
    """,
    """
    INSERT INTO queue.tasks (id, report, plugin, merchant, strategy, toolset, state, priority, rank, max_attempts,
        estimated_seconds, run_time, create_time, update_time, end_time, traceparent)
    SELECT id, id, plugin, 'm', 's', 1 + n % 8, CASE WHEN n % 2 = 0 THEN 'pending' ELSE 'completed' END, 5,
        now() - n * interval '1 second', 3, 60, now(), now(), now(), CASE WHEN n % 2 = 1 THEN now() END, ''
    FROM (SELECT id, plugin, row_number() OVER () AS n FROM queue.reports) r
    """,
    """
    INSERT INTO queue.history (id, report, number, merchant, task, strategy, worker, method, success, outcome, details,
        tools, seconds, create_time, actor)
    SELECT queue.uuid_v7(now()), id, 1, merchant, id, 's', 'w', '', true, 'COMPLETED', '{}', '{}', 1, now(), 'w'
    FROM queue.reports
    """,
    "ANALYZE queue.reports",
    "ANALYZE queue.report_details",
    "ANALYZE queue.tasks",
    "ANALYZE queue.history",
)
LARGE = re.compile(r"Seq Scan on (?:queue\.)?(?:tasks|reports|report_details|history\w*)\b")
HOT = {
    "claim": (task_leases.CLAIM, ["tasks_waiting", "tasks_pkey"]),
    "claim among several tool sets": (task_leases.CLAIM_AMONG, ["tasks_waiting", "tasks_pkey"]),
    "extend": (task_leases.EXTEND, ["Index Scan using tasks_"]),
    "complete": (task_leases.COMPLETE, ["tasks_pkey", "reports_pkey"]),
    "fail": (task_leases.FAIL, ["tasks_pkey", "reports_pkey"]),
    "reap": (tasks.REAP, ["tasks_state", "reports_pkey"]),
    "due": (tasks.DUE, ["tasks_retrying"]),
    "clean up": (tasks.CLEAN_UP, ["tasks_pkey"]),
    "list tasks": (tasks.LIST, ["tasks_pkey"]),
    "list tasks in a state": (tasks.LIST_IN_STATE, ["tasks_state"]),
    "list tasks of a report": (tasks.LIST_OF_REPORT, ["_report_number_idx", "tasks_active"]),
    "count occurrences": (reports.UPSERT, ["Conflict Arbiter Indexes: reports_fingerprint"]),
    "untriaged": (reports.UNTRIAGED, ["reports_untriaged", "report_details_pkey"]),
    "list reports": (reports.LIST, ["reports_seen"]),
    "list reports of a plugin": (reports.LIST_OF_PLUGIN, ["reports_created"]),
    "list escalated reports": (reports.LIST_ESCALATED, ["reports_escalated"]),
    "save triage": (report_transitions.SAVE_TRIAGE, ["reports_pkey", "report_details_pkey"]),
    "resolve": (report_transitions.RESOLVE, ["reports_pkey"]),
    "reopen approved": (report_transitions.REOPEN_APPROVED, ["reports_awaiting_approval"]),
    "history": (history.OF_REPORTS, ["_report_number_idx"]),
    "history of a strategy": (strategies.HISTORY, ["_strategy_number_idx"]),
    "task states": (state_counts.TASK_STATES, ["tasks_state"]),
}


@pytest.fixture(scope="module")
async def filled(servers: Any) -> AsyncIterator[Database]:
    backing = await BackingServices.make(servers)
    database = Database(backing.url(), clock=SystemClock(), session=PLANNER)
    try:
        # Filling may take longer than any statement of a service may.
        connection = await asyncpg.connect(backing.url(), timeout=10, command_timeout=100)
        for statement in SEED:
            sql, names = numbered(statement)
            await connection.execute(sql, *[ROWS] * len(names))
        await connection.close()
        yield database
    finally:
        await database.close()
        await backing.discard()


async def plan(database: Database, statement: str) -> str:
    """The plan that is kept of a statement, whatever it is executed with."""
    sql, names = numbered(statement)
    nothing = ", ".join(["NULL"] * len(names))
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql(f"PREPARE asked AS {sql}")
        rows = (await connection.exec_driver_sql(f"EXPLAIN EXECUTE asked{f'({nothing})' if nothing else ''}")).all()
        await connection.exec_driver_sql("DEALLOCATE asked")
        return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_goes_by_index(filled: Database, name: str) -> None:
    statement, wanted = HOT[name]
    found = await plan(filled, statement)
    assert not LARGE.search(found), found
    for index in wanted:
        assert index in found, found


async def test_a_claim_sorts_no_more_than_it_takes(filled: Database) -> None:
    chosen = (await plan(filled, task_leases.CLAIM)).split("CTE leased")[0].split("CTE chosen")[1]
    assert "Sort" not in chosen, chosen
