"""What time does to tasks and reports: lost leases, due tries, watch windows, counts, and what expires."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from libs.common.telemetry import counter, current_telemetry, gauge, use_traceparent
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.operations.completion import MOST_SPANS, record_recovered
from services.queue.operations.learning import record_outcomes, train_classifier
from services.queue.stats import queue_stats
from services.queue.store import history, proposals, report_transitions, reports, state_counts, tasks
from services.queue.wire import facts

MOST = 500
MOST_DUE = 2000
MOST_WATCHES = 100

_depth = gauge("queue_tasks", "Tasks by state", ("state",))
_reports = gauge("queue_reports", "Error reports by state", ("state",))
_oldest = gauge("queue_oldest_waiting_seconds", "Age of the oldest task that waits and is due; 0 when none does")
_lost = counter("queue_leases_lost_total", "Leases that lapsed", ("to",))
_resolved = counter("queue_resolved_total", "Reports that stayed healed")


async def reap(ctx: ServiceContext, _now: datetime) -> int:
    """Takes back tasks whose lease was lost; how many."""

    async def work(tx: Transaction) -> Sequence[Any]:
        rows = await tasks.reap(tx, most=leases.MAX_CRASHES, limit=MOST)
        await record_recovered(tx, ctx, rows, actor="queue", reason="leases were lost", outcome="LEASE_LOST")
        tx.after_commit(lambda: _lapsed(tx.now, rows))
        return rows

    return len(await ctx.database.transaction(work))


def _lapsed(now: datetime, rows: Sequence[Any]) -> None:
    for row in rows:
        _lost.labels(row.state).inc()
    for row in rows[:MOST_SPANS]:
        if row.traceparent:
            attributes = {"task": str(row.id), "worker": row.worker, "crashes": row.crashes}
            spans, began = current_telemetry(), row.claim_time or now
            spans.span_at("lease lost", began, now, parent=row.traceparent, error="LEASE_LOST", attributes=attributes)


async def strand(ctx: ServiceContext, now: datetime) -> int:
    """Gives tasks to people that wait for tools no worker has asked with for long; how many.

    A queue that is long is no reason: whoever asks for a set, however busy, keeps its tasks waiting.
    """
    longest = ctx.settings.stranded
    if ctx.clock.monotonic() < ctx.since + longest:
        return 0
    before = now - timedelta(seconds=longest)

    async def work(tx: Transaction) -> int:
        ended = 0
        for toolset, tools in (await tasks.unclaimed_toolsets(tx, before)).items():
            reason = f"no worker that has {', '.join(tools)} asked for work for {longest:g} s"
            rows = await tasks.strand(tx, toolset, before, reason=reason, limit=MOST)
            await record_recovered(tx, ctx, rows, actor="queue", reason=reason, outcome=leases.NO_WORKER)
            ended += len(rows)
        return ended

    return await ctx.database.transaction(work)


async def due(ctx: ServiceContext, _now: datetime) -> int:
    """Lets tries that are due wait for a worker; how many."""

    async def work(tx: Transaction) -> int:
        found = await tasks.due(tx, MOST_DUE)
        if found:
            tx.after_commit(ctx.wake_claims)
        return found

    return await ctx.database.transaction(work)


async def watch(ctx: ServiceContext, _now: datetime) -> int:
    """Resolves reports that did not come back within their window, and learns from them; how many."""

    async def work(tx: Transaction) -> int:
        watched = await report_transitions.end_watch(tx)
        rows = await report_transitions.resolve(tx, watched) if watched else ()
        if rows:
            await _verified(tx, ctx, rows)
        return len(watched)

    ended = 0
    for _ in range(MOST_WATCHES):
        found = await ctx.database.transaction(work)
        if not found:
            break
        ended += found
    return ended


async def _verified(tx: Transaction, ctx: ServiceContext, rows: Sequence[Any]) -> None:
    await state_counts.add_transitions(tx, "report", (("resolved_pending", "resolved", 0) for _ in rows))
    entries = [
        (str(row.id), str(row.task) if row.task else None, row.strategy, row.resolved_by, row.resolution_method)
        for row in rows
    ]
    await history.add(tx, entries, success=True, outcome="VERIFIED", actor="queue")
    await record_outcomes(tx, ctx, [(row.strategy, True) for row in rows])
    details = await reports.get_many(tx, [str(row.id) for row in rows])
    await train_classifier(tx, [(row.type, reports.report(details[str(row.id)])) for row in rows if row.strategy])
    for row in rows:
        with use_traceparent(row.traceparent):
            tx.record(facts.report_resolved(row, tx.now))
    tx.after_commit(lambda: _resolved.inc(len(rows)))
    tx.after_commit(lambda: _spans(tx.now, rows))


def _spans(now: datetime, rows: Sequence[Any]) -> None:
    for row in rows[:MOST_SPANS]:
        if row.traceparent:
            attributes = {"report": str(row.id), "strategy": row.strategy}
            current_telemetry().span_at("verified resolved", now, now, parent=row.traceparent, attributes=attributes)


async def fold(ctx: ServiceContext, now: datetime) -> int:
    """Folds the counts and shows them as metrics; how many sums were touched."""
    touched = await ctx.database.transaction(state_counts.fold)
    async with ctx.database.reading() as tx:
        stats = queue_stats(await state_counts.totals(tx))
        status = await state_counts.task_states(tx)
    for state, number in stats.tasks.items():
        _depth.labels(state).set(number)
    for state, number in stats.reports.items():
        _reports.labels(state).set(number)
    waiting = state_counts.oldest_waiting(status)
    _oldest.set(max(0.0, (now - waiting).total_seconds()) if waiting else 0.0)
    return touched


async def expire(ctx: ServiceContext, _now: datetime) -> int:
    """Ends proposals nobody decided on in time; how many."""

    async def work(tx: Transaction) -> int:
        ended = await proposals.expire(tx, MOST)
        for proposal in ended:
            tx.record(facts.proposal_decided(proposal, approved=False, actor="queue", reason=proposal.decision_reason))
        return len(ended)

    return await ctx.database.transaction(work)
