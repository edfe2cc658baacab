"""Error reports: reported by trusted services, listed, explained, closed by operators."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import grpc

from libs.common import access, paging
from libs.common.database import Transaction, unstorable
from libs.common.errors import known
from libs.common.names import new_id
from libs.common.telemetry import counter, new_traceparent
from prunella.v1 import queue_pb2 as pb
from services.queue import triage
from services.queue.context import ServiceContext
from services.queue.operations.commands import close_report
from services.queue.operations.counting import Counted, count_batches, count_one_by_one
from services.queue.store import classifier_counts, history, merged_kinds, reports, strategies
from services.queue.store.reports import Occurrence
from services.queue.wire import merges as merge_wire
from services.queue.wire import reports as wire
from services.queue.wire import strategies as strategy_wire
from services.queue.wire import tasks as task_wire
from services.queue.wire.reports import Refusal

Context = grpc.aio.ServicerContext[Any, Any]

# Errors read at once before others get a turn; grouping a long stack takes a moment.
TURN = 25
# Merged kinds that one report is shown with.
MOST_KINDS = 100

_reported = counter("queue_errors_total", "Reported errors, by what became of them", ("outcome",))


class ReportHandlers:
    """The part of `QueueService` about error reports."""

    ctx: ServiceContext

    async def ReportErrors(self, request: pb.ReportErrorsRequest, _context: Context) -> pb.ReportErrorsResponse:
        """Counts errors, each for itself. Raises Invalid when there are too many, Refused for a reused request_id."""
        source = wire.source(request)
        now = self.ctx.clock.now()
        caller = access.caller()
        read: list[Occurrence | Refusal] = []
        for index, error in enumerate(request.errors):
            refused = wire.not_owned(error, caller)
            read.append(refused or wire.occurrence(error, new_id(now), new_traceparent(""), now))
            if index % TURN == TURN - 1:
                await asyncio.sleep(0)
        accepted = [one for one in read if isinstance(one, Occurrence)]
        batches = wire.upsert_batches(accepted)

        async def together(tx: Transaction) -> pb.ReportErrorsResponse:
            return _answer(read, await count_batches(tx, self.ctx, batches, source))

        async def one_by_one(tx: Transaction) -> pb.ReportErrorsResponse:
            return _answer(read, await count_one_by_one(tx, self.ctx, batches, source))

        try:
            answer = await self.ctx.requests.once(request, pb.ReportErrorsResponse, together)
        except Exception as error:
            if not unstorable(error):
                raise
            answer = await self.ctx.requests.once(request, pb.ReportErrorsResponse, one_by_one)
        _measure(answer)
        self.ctx.nudge_triage()
        return answer

    async def GetErrorReport(self, request: pb.GetErrorReportRequest, _context: Context) -> pb.GetErrorReportResponse:
        """One report with its history. Raises Invalid for a bad name, NotFound for an unknown one."""
        async with self.ctx.database.reading() as tx:
            row = await self._report(tx, request.name)
            entries = await history.of_report(tx, str(row.id))
            kinds = await merged_kinds.of_report(tx, str(row.id), MOST_KINDS)
        return pb.GetErrorReportResponse(
            report=wire.resource(row),
            history=[wire.entry(entry) for entry in entries],
            merged_kinds=[merge_wire.merged_kind(kind) for kind in kinds],
        )

    async def ListErrorReports(
        self, request: pb.ListErrorReportsRequest, _context: Context
    ) -> pb.ListErrorReportsResponse:
        """Reports, last seen first. Raises Invalid for bad paging."""
        filters = wire.filters(request)
        page = paging.page(request, {"list": "reports", **vars(filters)}, datetime, UUID)
        async with self.ctx.database.reading() as tx:
            rows, token = page.cut(await reports.page(tx, filters, page), lambda row: [row.last_seen_time, row.id])
        return pb.ListErrorReportsResponse(reports=[wire.resource(row) for row in rows], next_page_token=token)

    async def ExplainErrorReport(
        self, request: pb.ExplainErrorReportRequest, _context: Context
    ) -> pb.ExplainErrorReportResponse:
        """Why it is one report, what it was understood as, and which strategies fit how well."""
        async with self.ctx.database.reading() as tx:
            row = await self._report(tx, request.name)
            stored = await strategies.all_statuses(tx)
            classifier = await classifier_counts.load(tx)
        catalogue = self.ctx.catalogue.with_statuses({name: one.status for name, one in stored.items()})
        report = reports.report(row)
        now = triage.classify(report, catalogue, classifier)
        fits = triage.ranked_fits(report, catalogue, now)
        answer = pb.ExplainErrorReportResponse(grouping=row.grouping)
        if row.triage:
            answer.triage.CopyFrom(wire.triage(row.triage))
        for fit in fits:
            best = now.blocker is None and fit.strategy.name == now.strategy
            answer.strategies.append(strategy_wire.fit(fit, stored.get(fit.strategy.name), best=best))
        return answer

    async def CloseErrorReport(
        self, request: pb.CloseErrorReportRequest, _context: Context
    ) -> pb.CloseErrorReportResponse:
        """Ends a report and what works on it; one that is closed stays as it is."""
        report = task_wire.id_of("errorReports", request.name)
        reason = task_wire.reason(request.reason, "closed by a person")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.CloseErrorReportResponse:
            await close_report(tx, report, actor=actor, reason=reason)
            return pb.CloseErrorReportResponse(report=wire.resource(await reports.get(tx, report)))

        return await self.ctx.requests.once(request, pb.CloseErrorReportResponse, work)

    async def _report(self, tx: Transaction, name: str) -> Any:
        report = task_wire.id_of("errorReports", name)
        return known(await reports.get(tx, report), "report", report)


def _answer(
    read: Sequence[Occurrence | Refusal], found: Mapping[tuple[str, str], Counted | Refusal]
) -> pb.ReportErrorsResponse:
    answer = pb.ReportErrorsResponse()
    first: set[str] = set()
    for one in read:
        counted = one if isinstance(one, Refusal) else found[one.plugin, one.fingerprint]
        if isinstance(counted, Refusal):
            answer.outcomes.add(refusal=counted.reason, field=counted.field, message=counted.message)
            continue
        fresh = counted.report not in first
        first.add(counted.report)
        answer.outcomes.add(
            report=f"errorReports/{counted.report}",
            created=counted.created and fresh,
            regression=counted.came_back and fresh,
        )
    return answer


def _measure(answer: pb.ReportErrorsResponse) -> None:
    for one in answer.outcomes:
        outcome = "refused" if one.refusal else "new" if one.created else "regression" if one.regression else "counted"
        _reported.labels(outcome).inc()
