"""Reports that are one: merged and split by people, and suggested by what their messages share."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc

from libs.common import access
from libs.common.database import Transaction
from prunella.v1 import queue_pb2 as pb
from services.queue.context import ServiceContext
from services.queue.kinds import OVERFLOW
from services.queue.operations.merging import merge_reports, split_report
from services.queue.similarity import suggestions
from services.queue.store import merges, reports
from services.queue.wire import merges as wire
from services.queue.wire import reports as report_wire
from services.queue.wire import tasks as task_wire

Context = grpc.aio.ServicerContext[Any, Any]

# What was seen within this time is compared, and so many reports at most.
RECENT = timedelta(days=7)
MOST_COMPARED = 2000


class MergeHandlers:
    """The part of `QueueService` about merges."""

    ctx: ServiceContext

    async def MergeErrorReports(
        self, request: pb.MergeErrorReportsRequest, _context: Context
    ) -> pb.MergeErrorReportsResponse:
        """Merges reports, each judged for itself. Raises NotFound or Refused when nothing can be merged into `into`."""
        asked, bad = wire.names(request)
        into = wire.into(request)
        reason = task_wire.reason(request.reason, "a person says they are one")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.MergeErrorReportsResponse:
            done = await merge_reports(tx, self.ctx, list(asked), into, actor=actor, reason=reason)
            return pb.MergeErrorReportsResponse(
                report=report_wire.resource(await reports.get(tx, into)),
                merged=[f"errorReports/{report}" for report in done.merged],
                refusals=[*bad, *wire.refusals(asked, done.refused)],
            )

        return await self.ctx.requests.once(request, pb.MergeErrorReportsResponse, work)

    async def SplitErrorReport(
        self, request: pb.SplitErrorReportRequest, _context: Context
    ) -> pb.SplitErrorReportResponse:
        """Takes a merge back. Raises NotFound, or Refused when nothing is merged."""
        report = task_wire.id_of("errorReports", request.name)
        reason = task_wire.reason(request.reason, "a person says they are not one")
        actor = access.caller()

        async def work(tx: Transaction) -> pb.SplitErrorReportResponse:
            source, split = await split_report(tx, self.ctx, report, actor=actor, reason=reason)
            rows = await reports.get_many(tx, split)
            resources = [report_wire.resource(rows[one]) for one in split]
            return pb.SplitErrorReportResponse(reports=resources, merged_into=f"errorReports/{source}")

        return await self.ctx.requests.once(request, pb.SplitErrorReportResponse, work)

    async def ListMergeSuggestions(
        self, request: pb.ListMergeSuggestionsRequest, _context: Context
    ) -> pb.ListMergeSuggestionsResponse:
        """Reports that say nearly the same. Raises Invalid naming the field."""
        plugin, most = wire.suggestions_filter(request)
        since = self.ctx.clock.now() - RECENT
        async with self.ctx.database.reading() as tx:
            rows = await merges.candidates(tx, plugin, since, OVERFLOW, MOST_COMPARED)
        messages = {row.id: row.message for row in rows}
        # Comparing many takes a moment, which others need not wait for.
        found = await asyncio.to_thread(suggestions, [wire.candidate(row) for row in rows])
        return pb.ListMergeSuggestionsResponse(suggestions=[wire.suggestion(one, messages) for one in found[:most]])
