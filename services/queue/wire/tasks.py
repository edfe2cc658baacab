"""Tasks, leases and their ends: what workers and operators send, checked; what they see."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import names
from libs.common.errors import Invalid
from prunella.v1 import queue_pb2 as pb
from services.queue import leases
from services.queue.stats import QueueStats
from services.queue.store.task_leases import Completion
from services.queue.store.tasks import Filters
from services.queue.wire.enums import filter_text, task_state_name, task_state_value

MOST_TASKS = 1000
MOST_TOOLS = 500
LONGEST_TOOL = 128
LONGEST_WORKER = 128
LONGEST_METHOD = 200
LONGEST_FAILURE = 64
LONGEST_DETAILS = 64 * 1024
LONGEST_WAIT = 30.0
LONGEST_REASON = 1000
LONGEST_WORK = 366 * 86400

_UUID = re.compile(r"/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def id_of(collection: str, name: str, *, field: str = "name") -> str:
    """The UUID in a name; Invalid for another shape, and the id of nothing for an id that is no UUID."""
    start = len(collection) + 1
    if len(name) == start + 36 and name.startswith(collection) and _UUID.fullmatch(name, start - 1):
        return name[start:]
    found = names.parse(collection, name, field=field)
    try:
        return str(uuid.UUID(found))
    except ValueError:
        return NOTHING


# No row has this id.
NOTHING = "00000000-0000-0000-0000-000000000000"


def resource(row: Any, tools: Sequence[str]) -> pb.Task:
    """A task as callers see it."""
    proto = pb.Task(
        name=f"tasks/{row.id}",
        report=f"errorReports/{row.report}",
        plugin=row.plugin,
        state=task_state_value(row.state),
        priority=row.priority,
        strategy=f"strategies/{row.strategy}",
        tools=tools,
        attempts=row.attempts,
        crashes=row.crashes,
        max_attempts=row.max_attempts,
        worker=row.worker,
        reason=row.reason,
    )
    proto.estimated_duration.FromMilliseconds(round(row.estimated_seconds * 1000))
    proto.run_time.FromDatetime(row.run_time)
    proto.create_time.FromDatetime(row.create_time)
    proto.update_time.FromDatetime(row.update_time)
    if row.lease_expire_time:
        proto.lease_expire_time.FromDatetime(row.lease_expire_time)
    if row.end_time:
        proto.end_time.FromDatetime(row.end_time)
    return proto


def add_leased(into: pb.ClaimTasksResponse, row: Any, tools: Sequence[str], worker: str, until: Timestamp) -> None:
    """Adds a task with its token to an answer. Kept lean: a worker may claim a thousand at once."""
    proto = into.tasks.add(token=row.token, traceparent=row.traceparent)
    task = proto.task
    task.name = f"tasks/{row.id}"
    task.report = f"errorReports/{row.report}"
    task.plugin = row.plugin
    task.state = pb.TASK_STATE_PROCESSING
    task.priority = row.priority
    task.strategy = f"strategies/{row.strategy}"
    task.tools.extend(tools)
    task.attempts = row.attempts
    task.crashes = row.crashes
    task.max_attempts = row.max_attempts
    task.worker = worker
    task.estimated_duration.seconds = round(row.estimated_seconds)
    task.lease_expire_time.CopyFrom(until)
    task.create_time.seconds = int(row.create_time.timestamp())
    task.create_time.nanos = row.create_time.microsecond * 1000


def worker(text: str) -> str:
    """A worker's name. Raises Invalid."""
    if not text or len(text) > LONGEST_WORKER or not text.isprintable():
        rule = f"worker must name who works, in 1 to {LONGEST_WORKER} printable characters"
        raise Invalid(rule, reason="WORKER_MISSING", field="worker")
    return text


def max_tasks(number: int) -> int:
    """How many tasks are wanted. Raises Invalid outside 0 to 1,000."""
    _between("max_tasks", number, 0, MOST_TASKS, f"1 to {MOST_TASKS}, or 0 for one", "BAD_MAX_TASKS")
    return number or 1


def lease(duration: Duration, has_value: bool) -> timedelta:
    """How long a lease is wanted. Raises Invalid outside 5 s to 10 minutes."""
    if not has_value:
        return timedelta(seconds=leases.LEASE)
    rule = f"{leases.SHORTEST_LEASE:g} to {leases.LONGEST_LEASE:g} seconds"
    seconds = _seconds(duration)
    _between("lease_duration", seconds, leases.SHORTEST_LEASE, leases.LONGEST_LEASE, rule, "BAD_LEASE")
    return timedelta(seconds=seconds)


def wait(duration: Duration) -> float:
    """How many seconds the caller would wait for a first task. Raises Invalid outside 0 to 30."""
    seconds = _seconds(duration)
    _between("wait_duration", seconds, 0, LONGEST_WAIT, f"0 to {LONGEST_WAIT:g} seconds", "BAD_WAIT")
    return seconds


def tools(tool_names: Sequence[str], field: str = "tools") -> tuple[str, ...]:
    """Names of tools. Raises Invalid for a name that is none, or too many."""
    if len(tool_names) > MOST_TOOLS:
        raise Invalid(f"{field} may hold {MOST_TOOLS} names", reason="TOO_MANY_TOOLS", field=field)
    for name in tool_names:
        if not names.is_id(name) or len(name) > LONGEST_TOOL:
            rule = f"{field} must hold names such as server.tool, not {name[:40]!r}"
            raise Invalid(rule, reason="BAD_TOOL", field=field)
    return tuple(tool_names)


def completion(request: pb.CompleteTaskRequest) -> Completion:
    """The end of a try. Raises Invalid naming the field."""
    seconds = _seconds(request.duration)
    _between("duration", seconds, 0, LONGEST_WORK, "0 to a year", "BAD_DURATION")
    success, failure, permanent = request.success, request.failure, request.permanent
    if success and (failure or permanent):
        raise Invalid("a success has no failure; leave failure and permanent out", reason="BAD_END", field="failure")
    return Completion(
        id_of("tasks", request.name),
        request.token,
        success,
        _printable("method", request.method, LONGEST_METHOD),
        _details(request.details),
        tools(request.tools_used, "tools_used") if request.tools_used else (),
        seconds,
        _printable("failure", failure, LONGEST_FAILURE),
        permanent,
    )


def _printable(field: str, text: str, longest: int) -> str:
    if len(text) > longest or not text.isprintable():
        raise Invalid(f"{field} must be at most {longest} printable characters", reason="TOO_LONG", field=field)
    return text


def _details(text: str) -> str:
    if not text or text == "{}":
        return "{}"
    rule = f"details must be a JSON object of at most {LONGEST_DETAILS} bytes"
    if len(text.encode()) > LONGEST_DETAILS:
        raise Invalid(f"{rule}; leave long answers of tools out", reason="DETAILS_TOO_LONG", field="details")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid(rule, reason="BAD_DETAILS", field="details")
    return text


def reason(text: str, otherwise: str) -> str:
    """Why an operator does something. Raises Invalid when it is too long."""
    if len(text) > LONGEST_REASON or "\0" in text:
        raise Invalid(f"reason must be at most {LONGEST_REASON} characters", reason="REASON_TOO_LONG", field="reason")
    return text.strip() or otherwise


def priority(number: int) -> int:
    """A priority an operator sets; 0 keeps it. Raises Invalid outside 1 to 10."""
    rule = f"{leases.LOWEST} to {leases.HIGHEST}, or 0 to keep it"
    _between("priority", number or leases.LOWEST, leases.LOWEST, leases.HIGHEST, rule, "BAD_PRIORITY")
    return number


def stuck(duration: Duration) -> timedelta:
    """How long is stuck. Raises Invalid below a second."""
    seconds = _seconds(duration)
    _between("stuck_duration", seconds, 1, LONGEST_WORK, "1 second to a year (900s is usual)", "BAD_DURATION")
    return timedelta(seconds=seconds)


def days(number: int) -> timedelta:
    """How old is old. Raises Invalid outside 1 to 3650."""
    _between("days", number, 1, 3650, "1 to 3650", "BAD_DAYS")
    return timedelta(days=number)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _between(field: str, value: float, least: float, most: float, rule: str, reason: str) -> None:
    if not least <= value <= most:
        raise Invalid(f"{field} must be {rule}; it was {value:g}", reason=reason, field=field)


def filters(request: pb.ListTasksRequest) -> Filters:
    """What a list is asked for. Raises Invalid naming the field."""
    bare = request.report.removeprefix("errorReports/")
    return Filters(
        state=task_state_name(request.state),
        report=id_of("errorReports", f"errorReports/{bare}", field="report") if bare else "",
        plugin=filter_text("plugin", request.plugin.removeprefix("plugins/")),
        worker=filter_text("worker", request.worker),
    )


def stats(stats: QueueStats, status: Sequence[Any], now: datetime) -> pb.GetQueueStatsResponse:
    """The queue in figures, as callers see them."""
    proto = pb.GetQueueStatsResponse(
        tasks=stats.tasks,
        reports=stats.reports,
        total=stats.total,
        success_rate_percent=stats.success_rate_percent,
        mean_completion_minutes=stats.mean_completion_minutes,
    )
    proto.time.FromDatetime(now)
    for row in status:
        line = proto.task_states.add(state=row.state, count=row.count, mean_priority=row.mean_priority)
        if row.oldest_create_time:
            line.oldest_create_time.FromDatetime(row.oldest_create_time)
            line.newest_create_time.FromDatetime(row.newest_create_time)
        if row.state == "pending" and row.oldest_create_time:
            proto.oldest_waiting_seconds = max(0.0, (now - row.oldest_create_time).total_seconds())
    return proto
