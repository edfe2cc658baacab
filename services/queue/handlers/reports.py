"""Error reports: reported by trusted services, listed, explained, closed by operators."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import grpc

from libs.common import access, paging
from libs.common.database import Transaction
from libs.common.errors import known
from libs.common.names import new_id
from libs.common.telemetry import counter, current_telemetry, current_traceparent, new_traceparent, use_traceparent
from prunella.v1 import queue_pb2 as pb
from services.queue import triage
from services.queue.context import ServiceContext
from services.queue.handlers.idempotency import idempotent
from services.queue.operations.commands import close_report
from services.queue.operations.learning import record_outcomes
from services.queue.store import classifier_counts, history, reports, strategies
from services.queue.store.reports import Occurrence
from services.queue.wire import facts
from services.queue.wire import reports as wire
from services.queue.wire import strategies as strategy_wire
from services.queue.wire import tasks as task_wire
from services.queue.wire.reports import Refusal

Context = grpc.aio.ServicerContext[Any, Any]

# Errors read at once before others get a turn; grouping a long stack takes a moment.
TURN = 25

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

        async def work(tx: Transaction) -> pb.ReportErrorsResponse:
            found: dict[tuple[str, str], tuple[str, bool, bool]] = {}
            for batch in batches:
                await self._count(tx, batch, source, found)
            return _answer(read, found)

        answer = await idempotent(self.ctx, request, pb.ReportErrorsResponse, work)
        self.ctx.nudge_triage()
        return answer

    async def GetErrorReport(self, request: pb.GetErrorReportRequest, _context: Context) -> pb.GetErrorReportResponse:
        """One report with its history. Raises Invalid for a bad name, NotFound for an unknown one."""
        async with self.ctx.database.reading() as tx:
            row = await self._report(tx, request.name)
            entries = await history.of_report(tx, str(row.id))
        return pb.GetErrorReportResponse(report=wire.resource(row), history=[wire.entry(entry) for entry in entries])

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

        return await idempotent(self.ctx, request, pb.CloseErrorReportResponse, work)

    async def _count(
        self, tx: Transaction, batch: Sequence[Occurrence], source: str, found: dict[tuple[str, str], Any]
    ) -> None:
        by_kind = {(one.plugin, one.fingerprint): one for one in batch}
        recurred = []
        caller = current_traceparent()
        rows = await reports.upsert(tx, batch, source)
        new = {str(row.id) for row in rows}
        if first := [one for one in batch if one.id in new]:
            await reports.insert_details(tx, first)
        for row in rows:
            one = by_kind[row.plugin, row.fingerprint]
            came_back = row.previous_state not in ("", row.state)
            created = str(row.id) == one.id
            _, was_created, had_come_back = found.get((row.plugin, row.fingerprint), ("", False, False))
            found[row.plugin, row.fingerprint] = str(row.id), created or was_created, came_back or had_come_back
            if created or came_back:
                with use_traceparent(row.traceparent):
                    tx.record(facts.error_reported(row, one.message or one.type, regression=came_back))
                tx.after_commit(partial(_span, row.traceparent, str(row.id), tx.now, created, caller))
            if row.previous_state == "resolved_pending" and came_back:
                recurred.append((row.strategy, False))
        await record_outcomes(tx, self.ctx, recurred)

    async def _report(self, tx: Transaction, name: str) -> Any:
        report = task_wire.id_of("errorReports", name)
        return known(await reports.get(tx, report), "report", report)


def _span(traceparent: str, report: str, now: datetime, created: bool, caller: str) -> None:
    """The span a report's trace begins with, or goes on with; made after the commit."""
    links = [caller] if caller else []
    where = {"parent": "", "traceparent": traceparent} if created else {"parent": traceparent}
    name = "error reported" if created else "error came back"
    current_telemetry().span_at(name, now, now, links=links, attributes={"report": report}, **where)


def _answer(
    read: Sequence[Occurrence | Refusal], found: dict[tuple[str, str], tuple[str, bool, bool]]
) -> pb.ReportErrorsResponse:
    answer = pb.ReportErrorsResponse()
    first: set[str] = set()
    for one in read:
        if isinstance(one, Refusal):
            answer.outcomes.add(refusal=one.reason, field=one.field, message=one.message)
            _reported.labels("refused").inc()
            continue
        report, created, came_back = found[one.plugin, one.fingerprint]
        fresh = report not in first
        first.add(report)
        answer.outcomes.add(report=f"errorReports/{report}", created=created and fresh, regression=came_back and fresh)
        _reported.labels("new" if created and fresh else "regression" if came_back and fresh else "counted").inc()
    return answer
