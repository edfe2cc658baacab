"""`prunella queue`: work that waits for tools, how it goes, and the worker that does it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_groups import command_group
from cli.output import (
    Json,
    Limit,
    Reason,
    Watch,
    coloured,
    plain,
    safe,
    show_fields,
    show_json,
    show_json_list,
    show_table,
)
from cli.plane_client import TIMEOUT, find, guarded, plane_file, run
from cli.task_history import show_task_history

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Work that waits for tools, and how it goes.")

LONG = 60.0  # seconds that a command about many tasks may take
TaskName = Annotated[
    str, typer.Argument(help="Id of the task, or a unique part of it.", autocompletion=completion.task)
]
State = Annotated[
    str, typer.Option("--state", help="Only pending, processing, retrying, completed, failed or cancelled.")
]
Report = Annotated[str, typer.Option("--report", "-r", help="Only for this error report.")]
Plugin = Annotated[
    str, typer.Option("--plugin", "-p", help="Only on this plugin: label or id.", autocompletion=completion.plugin)
]
Worker = Annotated[str, typer.Option("--worker", help="Only of this worker.")]


@app.command()
def stats(watch: Watch = False, json: Json = False) -> None:
    """The queue in figures; a figure without data is a dash, never made up."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.queue_pb2 import GetQueueStatsRequest

        answer = await plane.queue.GetQueueStats(GetQueueStatsRequest(), timeout=TIMEOUT)
        if json:
            show_json(plain(answer))
            return
        now = datetime.now(UTC)
        columns = ("tasks", "count", "priority", "?oldest", "?newest")
        show_table(columns, (_status(one, now) for one in answer.task_states), empty="no task yet")
        show_fields(_figures(answer))

    run(work, watch=watch)


@app.command("list")
def list_(
    state: State = "", report: Report = "", plugin: Plugin = "", worker: Worker = "", limit: Limit = 50,
    watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Tasks, newest first."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.queue_pb2 import TaskState

        filters = {
            "state": formatting.enum_value(TaskState, state, "--state"),
            "report": await id_lookup.report(plane, report) if report else "",
            "plugin": await id_lookup.optional_plugin(plane, plugin),
            "worker": worker,
        }
        entries = listings.tasks(plane, limit, **filters)
        if json:
            await show_json_list(entries)
            return
        found = [entry async for entry in entries]
        labels = await id_lookup.labels(plane, (entry.plugin for entry in found))
        now = datetime.now(UTC)
        columns = ("task", "plugin", "state", "prio", "strategy", "failed", "?error", "?made", "?worker", "why")
        show_table(columns, (_row(entry, labels, now) for entry in found), empty="no task")

    run(work, watch=watch)


@app.command()
def show(task: TaskName, json: Json = False) -> None:
    """One task and everything that was tried."""

    async def work(plane: PlaneClient) -> None:
        from prunella.v1.queue_pb2 import GetTaskRequest

        request = GetTaskRequest(name=f"tasks/{await id_lookup.task(plane, task)}")
        answer = await plane.queue.GetTask(request, timeout=TIMEOUT)
        if json:
            show_json(plain(answer))
            return
        labels = await id_lookup.labels(plane, [answer.task.plugin])
        show_fields(_fields(answer.task, labels))
        show_task_history(answer.history)
        typer.echo(f"\nits error: prunella errors show {id_lookup.short(answer.task.report)}")

    run(work)


@app.command()
def retry(
    task: TaskName,
    reason: Reason,
    priority: Annotated[int, typer.Option("--priority", min=0, max=10, help="1 to 10; 0 keeps it.")] = 0,
) -> None:
    """Gives a task another try, at once."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import RetryTaskRequest

        name = f"tasks/{await id_lookup.task(plane, task)}"
        request = RetryTaskRequest(name=name, reason=reason, request_id=new_id(), priority=priority)
        _print((await plane.queue.RetryTask(request, timeout=TIMEOUT)).task)

    run(work)


@app.command()
def cancel(task: TaskName, reason: Reason) -> None:
    """Takes a task out of the queue; a lease on it is worth nothing from then on."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import CancelTaskRequest

        name = f"tasks/{await id_lookup.task(plane, task)}"
        request = CancelTaskRequest(name=name, reason=reason, request_id=new_id())
        _print((await plane.queue.CancelTask(request, timeout=TIMEOUT)).task)

    run(work)


@app.command("reset-stuck")
def reset_stuck(
    reason: Reason,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="In processing for longer than this.")] = 15,
) -> None:
    """Takes tasks back that have been in processing for too long; they wait for a worker again."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import ResetStuckTasksRequest

        request = ResetStuckTasksRequest(reason=reason, request_id=new_id())
        request.stuck_duration.FromMilliseconds(round(minutes * 60_000))
        answer = await plane.queue.ResetStuckTasks(request, timeout=LONG)
        typer.echo(f"{formatting.plural(answer.tasks, 'task')} taken back")

    run(work)


@app.command()
def cleanup(
    reason: Reason,
    days: Annotated[int, typer.Option("--days", min=1, help="Ended longer ago than this.")] = 30,
) -> None:
    """Deletes tasks that ended long ago; what was tried stays with the error report."""

    async def work(plane: PlaneClient) -> None:
        from libs.common.names import new_id
        from prunella.v1.queue_pb2 import CleanUpTasksRequest

        request = CleanUpTasksRequest(days=days, reason=reason, request_id=new_id())
        answer = await plane.queue.CleanUpTasks(request, timeout=LONG)
        typer.echo(f"{formatting.plural(answer.tasks, 'task')} deleted")

    run(work)


@app.command()
def worker(
    config: Annotated[
        Path, typer.Option("--config", "-c", exists=True, dir_okay=False, readable=True, help="Its servers and tools.")
    ],
) -> None:
    """Works tasks off with the MCP tools of a configuration, until Ctrl-C."""

    def work() -> int:
        import os
        import sys

        command = [sys.executable, "-P", "-m", "services.queue.worker", "--config", str(config.resolve())]
        sys.stdout.flush()
        # The worker takes this process's place: signals and exit status are its own.
        os.execve(sys.executable, command, worker_environment(os.environ))

    guarded(work)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the queue's address, the key, the import path. Raises PlaneNotFound."""
    import os
    import sys

    from deploy.local.installation import IS_CHECKOUT

    plane = find(environ)
    variables = {"PRUNELLA_QUEUE_ADDRESS": plane.addresses.get("queue", ""), "PRUNELLA_KEY": plane.key}
    # What is installed is found by itself, and tool servers with another Python must not get this one's packages.
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path)} if IS_CHECKOUT else {}
    if not environ.get("PRUNELLA_OTLP") and not environ.get("PRUNELLA_QUEUE_ADDRESS"):
        http = plane_file(environ).get("http", {})
        variables |= {"PRUNELLA_OTLP": f"http://{http['ops']}/v1/traces"} if http.get("ops") else {}
    return {**environ, **variables}


def _print(task: Any) -> None:
    from prunella.v1.queue_pb2 import TaskState

    typer.echo(
        f"task {id_lookup.short(task.name)} is {formatting.enum_label(TaskState, task.state)}, priority {task.priority}"
    )


def _status(one: Any, now: datetime) -> tuple[str, ...]:
    mean = f"{one.mean_priority:.1f}" if one.HasField("mean_priority") else formatting.NO_VALUE
    return (
        coloured(one.state),
        str(one.count),
        mean,
        formatting.ago(one.oldest_create_time, now),
        formatting.ago(one.newest_create_time, now),
    )


def _figures(answer: Any) -> list[tuple[str, str]]:
    def variables(name: str, text: str) -> str:
        return text.format(getattr(answer, name)) if answer.HasField(name) else formatting.NO_VALUE

    waits = (
        formatting.duration(answer.oldest_waiting_seconds)
        if answer.HasField("oldest_waiting_seconds")
        else formatting.NO_VALUE
    )
    reports = ", ".join(f"{count} {coloured(state)}" for state, count in sorted(answer.reports.items()) if count)
    return [
        ("tasks", str(answer.total)),
        ("completed", variables("success_rate_percent", "{:.1f} % of those that ended")),
        ("takes", variables("mean_completion_minutes", "{:.1f} min on average")),
        ("oldest due", waits),
        ("errors", reports or "none"),
    ]


def _tries(task: Any) -> str:
    lost = f" +{task.crashes} lost" if task.crashes else ""
    return f"{task.attempts} of {task.max_attempts}{lost}"


def _row(task: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    from prunella.v1.queue_pb2 import TaskState

    return (
        id_lookup.short(task.name),
        safe(labels.get(task.plugin, "")),
        coloured(formatting.enum_label(TaskState, task.state)),
        str(task.priority),
        safe(task.strategy.rpartition("/")[2]),
        _tries(task),
        id_lookup.short(task.report),
        formatting.ago(task.create_time, now),
        safe(task.worker or formatting.NO_VALUE),
        safe(task.reason),
    )


def _fields(task: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    from prunella.v1.queue_pb2 import TaskState

    now = datetime.now(UTC)
    state = formatting.enum_label(TaskState, task.state)
    return [
        ("task", task.name.rpartition("/")[2]),
        ("error", task.report.rpartition("/")[2]),
        ("plugin", safe(f"{labels.get(task.plugin, '')} ({task.plugin})") if task.plugin else ""),
        ("state", coloured(state)),
        ("why", safe(task.reason)),
        ("priority", f"{task.priority} of 10"),
        ("strategy", safe(task.strategy)),
        ("tools", safe(", ".join(task.tools))),
        ("takes about", formatting.proto_duration(task.estimated_duration)),
        ("failed tries", _tries(task)),
        ("worker", safe(task.worker)),
        ("lease", formatting.ago(task.lease_expire_time, now) if state == "processing" else ""),
        ("next try", formatting.ago(task.run_time, now) if state in {"pending", "retrying"} else ""),
        ("made", formatting.ago(task.create_time, now)),
        ("took", formatting.elapsed(task.create_time, task.end_time).removeprefix(formatting.NO_VALUE)),
    ]
