"""Reports are merged into one and split again by people, and that is remembered.

Rule: each report is judged for itself (`kinds.merge_refusal`); what is refused changes nothing, a repeat is harmless. A
merged report is closed and its task cancelled: the report it is merged into goes on with a task of its own, so that
something is tried and learned once. What was thought healed is looked at again when something open is merged into it.
A split gives each report back what it counted, before and since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import NotFound, Problem, Refused, known
from libs.common.telemetry import use_traceparent
from services.queue.context import ServiceContext
from services.queue.kinds import Mergeable, merge_refusal, reopens, state_after_split
from services.queue.operations.commands import cancel_active
from services.queue.store import history, merges, state_counts, tasks
from services.queue.wire import facts


@dataclass
class Merged:
    """What became of a request to merge; `refused` by report."""

    merged: list[str] = field(default_factory=list)
    refused: dict[str, Problem] = field(default_factory=dict)


async def merge_reports(
    tx: Transaction, ctx: ServiceContext, reports: Sequence[str], into: str, *, actor: str, reason: str
) -> Merged:
    """Merges reports into another. Raises NotFound for an unknown target, Refused for one that is merged itself."""
    active = {report: await tasks.active_of(tx, report) for report in sorted(set(reports))}
    rows = await merges.lock(tx, sorted({*reports, into}))
    target = known(rows.get(into), "report", into, field="into")
    if target.merged_into:
        raise Refused(
            f"report {into} is merged into {target.merged_into} itself; merge into that one",
            reason="REPORT_MERGED",
            field="into",
            merged_into=target.merged_into,
        )
    answer = Merged()
    fresh: list[Any] = []
    for report in dict.fromkeys(reports):
        row = rows.get(report)
        if problem := _problem(report, row, target):
            answer.refused[report] = problem
            continue
        answer.merged.append(report)
        if row is not None and row.merged_into != into:
            fresh.append(row)
    if fresh:
        for row in fresh:
            if (task := active[row.id]) is not None:
                await cancel_active(tx, task, actor=actor, reason=f"its report was merged into {into}: {reason}")
        await _merge(tx, ctx, fresh, target, actor=actor, reason=reason)
    return answer


def _problem(report: str, row: Any | None, target: Any) -> Problem | None:
    if row is None:
        return NotFound(f"there is no report {report}", reason="REPORT_UNKNOWN", field="names")
    refusal = merge_refusal(_mergeable(row), _mergeable(target))
    return Refused(refusal[1], reason=refusal[0], field="names") if refusal else None


def _mergeable(row: Any) -> Mergeable:
    return Mergeable(row.id, row.plugin, row.merchant, row.fingerprint, row.merged_into)


async def _merge(
    tx: Transaction, ctx: ServiceContext, rows: Sequence[Any], target: Any, *, actor: str, reason: str
) -> None:
    ids = [row.id for row in rows]
    entries = [(row.id, str(row.task) if row.task else None, row.strategy, "", "merged") for row in rows]
    await history.add(tx, entries, success=True, outcome="MERGED", actor=actor)
    await merges.merge(tx, ids, target.id, f"merged into {target.id}: {reason}")
    changes = [(row.state, "closed", 0) for row in rows]
    if any(reopens(row.state, target.state) for row in rows):
        await merges.reopen(tx, target.id, f"what was merged into it is open: {reason}")
        changes.append((target.state, "new", 0))
        tx.after_commit(ctx.nudge_triage)
    await state_counts.add_transitions(tx, "report", changes)
    for row in rows:
        with use_traceparent(row.traceparent):
            # Not the person's: one merge is one thing that a person did.
            tx.record(facts.report_closed(row, actor="queue", reason=f"merged into {target.id}: {reason}"))
    with use_traceparent(target.traceparent):
        tx.record(facts.reports_merged(target, ids, actor=actor, reason=reason))


async def split_report(
    tx: Transaction, ctx: ServiceContext, report: str, *, actor: str, reason: str
) -> tuple[str, list[str]]:
    """Takes back the merge of a report, or of all that were merged into it; returns what they were merged into, and
    which they are. Raises NotFound, or Refused when nothing is merged.
    """
    among = [report, *await merges.merged_into(tx, report)]
    rows = await merges.lock(tx, among)
    row = known(rows.get(report), "report", report)
    into = row.merged_into or report
    split = [row] if row.merged_into else [one for one in rows.values() if one.merged_into == report]
    if not split:
        raise Refused(
            "nothing is merged into this report, and it is merged into no other; see `prunella errors show`",
            reason="NOT_MERGED",
            field="name",
        )
    target = row if into == report else known((await merges.lock(tx, [into])).get(into), "report", into)
    kinds = await merges.kinds(tx, [one.id for one in split])
    states = {}
    for one in split:
        kind = kinds[one.plugin, one.fingerprint]
        states[one.id] = state_after_split(kind.previous_state, kind.occurrences)
    await merges.split(tx, states, into, f"split from {into}: {reason}")
    await state_counts.add_transitions(tx, "report", [("closed", state, 0) for state in states.values()])
    await history.add(
        tx, [(one.id, None, one.strategy, "", "split") for one in split], success=True, outcome="SPLIT", actor=actor
    )
    with use_traceparent(target.traceparent):
        tx.record(facts.reports_split(target, list(states), actor=actor, reason=reason))
    tx.after_commit(ctx.nudge_triage)
    return into, list(states)
