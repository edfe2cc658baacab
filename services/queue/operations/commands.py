"""Commands of operators about tasks, reports and strategies; approved proposals are carried out by the same functions.

Rule: a command is a transaction with its fact and its entry in the history. It may give an ended or waiting task
another try, cancel a task (its report is then escalated), close a report, and approve or revoke a strategy. What
is so already stays as it is; what the state forbids is refused with what to do instead. When a strategy may not write
any more, the leases under which it does are worth nothing from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import Refused, known
from libs.common.telemetry import use_traceparent
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.operations.completion import escalate, record_recovered
from services.queue.operations.learning import record_status_change
from services.queue.store import history, report_transitions, state_counts, strategies, tasks
from services.queue.wire import facts

MOST_STOPPED = 10_000


async def retry_task(
    tx: Transaction, ctx: ServiceContext, task: str, *, priority: int, actor: str, reason: str
) -> None:
    """Gives a task another try at once. Raises NotFound, or Refused when it is in work, done, or replaced."""
    row = known(await tasks.lock(tx, task), "task", task)
    if row.state in ("processing", "completed"):
        instead = (
            "wait for its end, or cancel it first" if row.state == "processing" else "its report shows what helped"
        )
        raise Refused(
            f"the task is {row.state}; {instead}", reason=f"TASK_{row.state.upper()}", field="name", state=row.state
        )
    other = await tasks.active_of(tx, str(row.report))
    if other is not None and other.id != row.id:
        raise Refused(
            f"task {other.id} works on the same report; cancel it first", reason="REPORT_HAS_TASK", field="name"
        )
    report = await report_transitions.lock_report(tx, str(row.report))
    if report is not None and report.merged_into:
        raise Refused(
            f"its report is merged into {report.merged_into}; work on that one, or split them first",
            reason="REPORT_MERGED",
            field="name",
        )
    wanted = priority or row.priority
    await tasks.save(tx, task, _values(row, "pending", tx.now, reason, priority=wanted, attempts=0, crashes=0))
    await state_counts.add_transitions(tx, "task", ((row.state, "", row.priority), ("", "pending", wanted)))
    await history.add(tx, [_entry(row)], success=False, outcome="RETRIED", actor=actor)
    if report is not None:
        await report_transitions.set_state(tx, str(row.report), "in_progress", f"another try: {reason}", task=task)
        await state_counts.add_transitions(tx, "report", [(report.state, "in_progress", 0)])
    with use_traceparent(row.traceparent):
        tx.record(facts.task_retried(row, wanted, actor=actor, reason=reason))
    tx.after_commit(ctx.wake_claims)


async def cancel_task(tx: Transaction, task: str, *, actor: str, reason: str) -> None:
    """Takes a task out; its report is escalated. Raises NotFound, or Refused when it has ended otherwise."""
    row = known(await tasks.lock(tx, task), "task", task)
    if row.state == "cancelled":
        return
    if row.state not in leases.ACTIVE:
        raise Refused(
            f"the task is {row.state} and cannot be cancelled any more", reason="TASK_ENDED", field="name",
            state=row.state,
        )  # fmt: skip
    await cancel_active(tx, row, actor=actor, reason=reason)
    await escalate(tx, {str(row.report): f"its task was cancelled: {reason}"}, actor=actor)


async def close_report(tx: Transaction, report: str, *, actor: str, reason: str) -> None:
    """Ends a report and what works on it. Raises NotFound."""
    active = await tasks.active_of(tx, report)
    row = known(await report_transitions.lock_report(tx, report), "report", report)
    if row.state == "closed":
        return
    if active is not None:
        await cancel_active(tx, active, actor=actor, reason=f"its report was closed: {reason}")
    task = str(row.task) if row.task else None
    await history.add(tx, [(report, task, "", "", "closed")], success=True, outcome="CLOSED", actor=actor)
    await report_transitions.set_state(tx, report, "closed", reason, resolved_by=actor, method="closed by a person")
    await state_counts.add_transitions(tx, "report", [(row.state, "closed", 0)])
    with use_traceparent(row.traceparent):
        tx.record(facts.report_closed(row, actor=actor, reason=reason))


async def approve_strategy(
    tx: Transaction, ctx: ServiceContext, name: str, *, approved: bool, actor: str, reason: str
) -> strategies.StoredStatus:
    """Lets a strategy use its write tools, or takes that back. Raises NotFound."""
    strategy = known(ctx.catalogue.strategy_set.named(name), "strategy", name)
    before = known((await strategies.lock(tx, [name])).get(name), "strategy", name)
    if before.status.approved == approved:
        return before
    after = replace(
        before,
        status=replace(before.status, approved=approved),
        approved_by=actor if approved else "",
        reason=reason,
        updated=tx.now,
    )
    await strategies.save(tx, after)
    await record_status_change(
        tx, strategy, before, after, actor=actor, reason=f"{'approved' if approved else 'revoked'}: {reason}"
    )
    if approved:
        again = await report_transitions.reopen_approved(tx, name, f"{name} was approved by {actor}: looked at again")
        await state_counts.add_transitions(tx, "report", (("escalated", "new", 0) for _ in range(again)))
        tx.after_commit(ctx.nudge_triage)
    elif strategy.writes:
        # A worker that is at work with it is cut off when it next extends its lease.
        reason = f"{name} may not write any more: {reason}"
        rows = await tasks.revoke(tx, name, actor=actor, reason=reason, most=leases.MAX_CRASHES, limit=MOST_STOPPED)
        await record_recovered(tx, ctx, rows, actor=actor, reason=reason, outcome="REVOKED")
    return after


async def cancel_active(tx: Transaction, row: Any, *, actor: str, reason: str) -> None:
    """Takes out a task that was locked while it waits or is in work; its report stays as it is."""
    await tasks.save(tx, str(row.id), _values(row, "cancelled", tx.now, reason))
    await state_counts.add_transitions(tx, "task", [(row.state, "cancelled", row.priority)])
    await history.add(tx, [_entry(row)], success=False, outcome="CANCELLED", actor=actor)
    with use_traceparent(row.traceparent):
        tx.record(facts.task_cancelled(row, actor=actor, reason=reason))


def _entry(row: Any) -> tuple[str, str | None, str, str, str]:
    return str(row.report), str(row.id), row.strategy, row.worker, ""


def _values(row: Any, state: str, now: Any, reason: str, **changed: Any) -> dict[str, Any]:
    priority = changed.get("priority", row.priority)
    return {
        "state": state,
        "priority": priority,
        "rank": leases.rank(row.create_time, priority),
        "attempts": row.attempts,
        "crashes": row.crashes,
        "run_time": now if state == "pending" else row.run_time,
        "end_time": None if state == "pending" else now,
        "reason": reason,
    } | changed
