"""The end of tries: what a worker's word, a lost lease or a person makes of task and report.

Rule: a word counts only under the token of the lease that stands; the same word twice is answered as if it were once,
another is refused and changes nothing. Task, report, history, counts and facts are one transaction, whatever the
number of tasks; a task that failed for good gives its report to a person in the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import NotFound, Problem, Refused, Stale
from libs.common.names import new_id
from libs.common.telemetry import counter, span_at, use_traceparent
from services.queue import leases
from services.queue.context import ServiceContext
from services.queue.operations.learning import record_outcomes
from services.queue.store import report_transitions, state_counts, task_leases
from services.queue.store.task_leases import Completion, JudgedFailure
from services.queue.wire import facts

# A span for each task of a batch tells more than anybody reads when the batch is large.
MOST_SPANS = 32

_ended = counter("queue_tries_total", "Tries that ended, by what became of the task", ("state",))


async def ended(
    tx: Transaction, ctx: ServiceContext, given: Sequence[Completion], actor: str
) -> Mapping[tuple[str, int], Problem]:
    """Records ends of tries, each task once; what was refused, by task and token."""
    done: list[Any] = []
    successes = [one for one in given if one.success]
    if successes:
        until = tx.now + timedelta(seconds=ctx.settings.watch)
        done += await task_leases.complete(tx, successes, actor=actor, watch_end_time=until)
    failures = [one for one in given if not one.success]
    if failures:
        done += await _failed(tx, ctx, failures, actor)
    if done:
        _tell(tx, done, actor)
        await given_up(tx, ctx, [row for row in done if row.state == "failed"], learn=True)
    recorded = {str(row.id) for row in done}
    rest = [one for one in given if one.task not in recorded]
    return await _refused(tx, rest) if rest else {}


async def _failed(tx: Transaction, ctx: ServiceContext, failures: Sequence[Completion], actor: str) -> Sequence[Any]:
    held = await task_leases.lock(tx, [one.task for one in failures])
    judged = []
    for one in failures:
        row = held.get(one.task)
        if row is None or row.token != one.token or row.state != "processing":
            continue
        end = leases.after_failure(
            row.attempts,
            row.max_attempts,
            tx.now,
            failure=one.failure,
            permanent=one.permanent,
            delays=ctx.settings.delays,
            chance=ctx.chance.random(),
        )
        reason = f"{end.outcome} by {row.worker}, try {end.attempts} of {row.max_attempts}"
        judged.append(JudgedFailure(one, end.state, end.attempts, end.run_time, end.outcome, reason))
    return await task_leases.fail(tx, judged, actor=actor) if judged else []


async def _refused(tx: Transaction, rest: Sequence[Completion]) -> Mapping[tuple[str, int], Problem]:
    standing = await task_leases.tokens(tx, [one.task for one in rest])
    found: dict[tuple[str, int], Problem] = {}
    for one in rest:
        row = standing.get(one.task)
        if row is None:
            found[one.task, one.token] = unknown(one.task)
        elif row.token != one.token:
            found[one.task, one.token] = stale(row.state)
        elif not leases.is_repeat(row.state, one.success):
            found[one.task, one.token] = Refused(
                f"the task is {row.state} already; nothing was recorded", reason="TASK_ENDED", field="token",
                state=row.state,
            )  # fmt: skip
    return found


def unknown(task: str) -> Problem:
    """The task does not exist."""
    return NotFound(f"there is no task {task}; it may have been cleaned up", reason="TASK_UNKNOWN", field="name")


def lapsed() -> Problem:
    """The lease ran out, and nobody has taken the task back yet."""
    return Stale(
        "the lease has run out and is not prolonged any more. Stop working on it; another worker gets the task",
        reason="LEASE_LAPSED",
        field="token",
        state="processing",
    )


def stale(state: str) -> Problem:
    """The lease is not held any more."""
    return Stale(
        f"the lease is not yours any more: the task is {state} under another token. Stop working on it; nothing was "
        "recorded",
        reason="STALE_TOKEN",
        field="token",
        state=state,
    )


def _tell(tx: Transaction, done: Sequence[Any], actor: str) -> None:
    workers = {row.worker for row in done}
    worker = workers.pop() if len(workers) == 1 else ""
    event = facts.tasks_finished(worker, done, actor=actor)
    if len(done) == 1:
        with use_traceparent(done[0].traceparent):
            tx.record(event)
    else:
        tx.record(event)
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
            span_at("task worked on", began, tx.now, parent=row.traceparent, error=error, attributes=attributes)


async def given_up(tx: Transaction, ctx: ServiceContext, rows: Sequence[Any], *, learn: bool) -> None:
    """Gives the reports of tasks that failed for good to people; `learn` when the tries may speak of the strategy."""
    if not rows:
        return
    awaiting_approval = {str(row.report): row.strategy for row in rows if learn and row.outcome == leases.NOT_APPROVED}
    await escalated(
        tx, {str(row.report): f"machines gave up: {row.reason}" for row in rows}, awaiting_approval=awaiting_approval
    )
    if learn:
        await record_outcomes(
            tx, ctx, [(row.strategy, False) for row in rows if row.outcome not in leases.INCONCLUSIVE]
        )


async def escalated(
    tx: Transaction, reasons: Mapping[str, str], *, actor: str = "", awaiting_approval: Mapping[str, str] | None = None
) -> None:
    """Gives reports that were in work to people, each with its reason; `awaiting_approval` says whose approval brings one back."""
    rows = await report_transitions.escalate(tx, reasons, awaiting_approval or {})
    await state_counts.add_transitions(tx, "report", (("in_progress", "escalated", 0) for _ in rows))
    for row in rows:
        told = facts.escalation(str(row.id), str(row.task or ""), row.type, row.severity, row.tried_strategies)
        with use_traceparent(row.traceparent):
            tx.record(
                facts.report_escalated(told, reason=row.reason, plugin=row.plugin, merchant=row.merchant, actor=actor)
            )
