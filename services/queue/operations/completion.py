"""Completion: what becomes of task and report when a worker completes a try, loses its lease, or has it taken back.

Rule: a completion counts only under the token of the present lease; the same one twice is answered as if it were once,
another is refused and changes nothing. Task, report, history, counts and facts are one transaction, whatever the
number of tasks; a task that failed for good escalates its report in the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import NotFound, Problem, Refused, Stale
from libs.common.telemetry import counter, current_telemetry, use_traceparent
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.operations.learning import record_outcomes
from services.queue.store import report_transitions, state_counts, task_leases
from services.queue.store.task_leases import Completion, JudgedFailure
from services.queue.wire import facts

# A span for each task of a batch tells more than anybody reads when the batch is large.
MOST_SPANS = 32

_ended = counter("queue_tries_total", "Tries that ended, by what became of the task", ("state",))


async def complete_tasks(
    tx: Transaction, ctx: ServiceContext, completions: Sequence[Completion], actor: str
) -> Mapping[tuple[str, int], Problem]:
    """Records completions, one for each lease; returns what was refused, by task and token."""
    done: list[Any] = []
    successes = [one for one in completions if one.success]
    if successes:
        until = tx.now + timedelta(seconds=ctx.settings.watch)
        done += await task_leases.complete(tx, successes, actor=actor, watch_end_time=until)
    failures = [one for one in completions if not one.success]
    if failures:
        done += await _failed(tx, ctx, failures, actor)
    if done:
        _record_finished(tx, done, actor)
        await _escalate_failed(tx, ctx, done, learn=True)
    recorded = {(str(row.id), row.token) for row in done}
    rest = [one for one in completions if (one.task, one.token) not in recorded]
    return await _refused(tx, rest) if rest else {}


async def _failed(tx: Transaction, ctx: ServiceContext, failures: Sequence[Completion], actor: str) -> Sequence[Any]:
    locked = await task_leases.lock(tx, [one.task for one in failures])
    judged = []
    for one in failures:
        row = locked.get(one.task)
        if row is None or row.token != one.token or row.state != "processing":
            continue
        after = leases.after_failure(
            row.attempts,
            row.max_attempts,
            tx.now,
            failure=one.failure,
            permanent=one.permanent,
            delays=ctx.settings.delays,
            chance=ctx.chance.random(),
        )
        reason = f"{after.outcome} by {row.worker}, try {after.attempts} of {row.max_attempts}"
        judged.append(JudgedFailure(one, after.state, after.attempts, after.run_time, after.outcome, reason))
    return await task_leases.fail(tx, judged, actor=actor) if judged else []


async def _refused(tx: Transaction, rest: Sequence[Completion]) -> Mapping[tuple[str, int], Problem]:
    current = await task_leases.tokens(tx, [one.task for one in rest])
    found: dict[tuple[str, int], Problem] = {}
    for one in rest:
        row = current.get(one.task)
        if row is None:
            found[one.task, one.token] = task_unknown(one.task)
        elif row.token != one.token:
            found[one.task, one.token] = stale_token(row.state)
        elif not leases.is_repeat(row.state, one.success):
            found[one.task, one.token] = Refused(
                f"the task is {row.state} already; nothing was recorded", reason="TASK_ENDED", field="token",
                state=row.state,
            )  # fmt: skip
    return found


def task_unknown(task: str) -> Problem:
    """The task does not exist."""
    return NotFound(f"there is no task {task}; it may have been cleaned up", reason="TASK_UNKNOWN", field="name")


def lease_lapsed() -> Problem:
    """The lease ran out, and nobody has taken the task back yet."""
    return Stale(
        "the lease has run out and is not prolonged any more. Stop working on it; another worker gets the task",
        reason="LEASE_LAPSED",
        field="token",
        state="processing",
    )


def stale_token(state: str) -> Problem:
    """The lease is not held any more."""
    return Stale(
        f"the lease is not yours any more: the task is {state} under another token. Stop working on it; nothing was "
        "recorded",
        reason="STALE_TOKEN",
        field="token",
        state=state,
    )


def _record_finished(tx: Transaction, done: Sequence[Any], actor: str) -> None:
    workers = {row.worker for row in done}
    worker = workers.pop() if len(workers) == 1 else ""
    with use_traceparent(done[0].traceparent if len(done) == 1 else ""):
        tx.record(facts.tasks_finished(worker, done, actor=actor))
    tx.after_commit(lambda: _measure(tx, done))


def _measure(tx: Transaction, done: Sequence[Any]) -> None:
    states = [row.state for row in done]
    for state in set(states):
        _ended.labels(state).inc(states.count(state))
    for row in done[:MOST_SPANS]:
        if row.traceparent:
            error = "" if row.state == "completed" else row.outcome
            attributes = {"task": str(row.id), "state": row.state, "worker": row.worker, "attempts": row.attempts}
            began = row.claim_time or tx.now
            current_telemetry().span_at(
                "task worked on", began, tx.now, parent=row.traceparent, error=error, attributes=attributes
            )


async def record_recovered(
    tx: Transaction, ctx: ServiceContext, rows: Sequence[Any], *, actor: str, reason: str, outcome: str
) -> None:
    """Records that tasks were taken back without a completion: they wait again, or have failed for good."""
    if not rows:
        return
    with use_traceparent(rows[0].traceparent if len(rows) == 1 else ""):
        tx.record(facts.tasks_recovered(rows, actor=actor, reason=reason, outcome=outcome))
    await _escalate_failed(tx, ctx, rows, learn=False)
    tx.after_commit(ctx.wake_claims)


async def _escalate_failed(tx: Transaction, ctx: ServiceContext, rows: Sequence[Any], *, learn: bool) -> None:
    """Escalates the reports of tasks that failed for good; `learn` when their tries may count for the strategy."""
    failed = [row for row in rows if row.state == "failed"]
    if not failed:
        return
    approvals = {str(row.report): row.strategy for row in failed if learn and row.outcome == leases.NOT_APPROVED}
    await escalate(tx, {str(row.report): f"machines gave up: {row.reason}" for row in failed}, awaiting=approvals)
    if learn:
        counted = [(row.strategy, False) for row in failed if row.outcome not in leases.INCONCLUSIVE]
        await record_outcomes(tx, ctx, counted)


async def escalate(
    tx: Transaction, reasons: Mapping[str, str], *, actor: str = "", awaiting: Mapping[str, str] | None = None
) -> None:
    """Escalates reports that were in work, each with its reason; `awaiting` names strategies whose approval reopens."""
    rows = await report_transitions.escalate(tx, reasons, awaiting or {})
    await state_counts.add_transitions(tx, "report", (("in_progress", "escalated", 0) for _ in rows))
    for row in rows:
        fact = facts.escalation(str(row.id), str(row.task or ""), row.type, row.severity, row.tried_strategies)
        about = {"reason": row.reason, "plugin": row.plugin, "merchant": row.merchant}
        with use_traceparent(row.traceparent):
            tx.record(facts.report_escalated(fact, actor=actor, **about))
