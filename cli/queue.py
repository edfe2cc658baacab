"""`prunella queue`: work that waits for tools, and how it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings, queue_worker
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, run_show
from cli.options import Json, Limit, PluginOn, Reason, TaskName, Watch
from cli.output import coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import run
from cli.task_history import show_task_history

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("Work that waits for tools, and how it goes.")

COLUMNS = ("task", "plugin", "state", "prio", "strategy", "failed", "?error", "?made", "?worker", "why")
LONG = 60.0  # seconds that a command about many tasks may take
State = Annotated[
    str, typer.Option("--state", help="Only pending, processing, retrying, completed, failed or cancelled.")
]
Report = Annotated[str, typer.Option("--report", "-r", help="Only for this error report.")]
Worker = Annotated[str, typer.Option("--worker", help="Only of this worker.")]
Priority = Annotated[int, typer.Option("--priority", min=0, max=10, help="1 to 10; 0 keeps it.")]


@app.command()
def stats(watch: Watch = False, json: Json = False) -> None:
    """The queue in figures; a figure without data is a dash, never made up."""

    async def work(plane: PlaneClient) -> None:
        answer = await plane.call("queue.GetQueueStats")
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
    state: State = "", report: Report = "", plugin: PluginOn = "", worker: Worker = "", limit: Limit = 50,
    watch: Watch = False, json: Json = False,
) -> None:  # fmt: skip
    """Tasks, newest first."""
    from prunella.v1.queue_pb2 import TaskState

    run_list(
        listings.tasks, limit, COLUMNS, _row, empty="no task", json=json, watch=watch, labelled=True,
        state=formatting.enum_value(TaskState, state, "--state"), report=report, plugin=plugin, worker=worker,
    )  # fmt: skip


@app.command()
def show(task: TaskName, json: Json = False) -> None:
    """One task and everything that was tried."""
    run_show("queue.GetTask", "tasks", task, _show, json=json)


@app.command()
def retry(task: TaskName, reason: Reason, priority: Priority = 0) -> None:
    """Gives a task another try, at once."""
    run_change("queue.RetryTask", "tasks", task, _state, field="task", reason=reason, priority=priority)


@app.command()
def cancel(task: TaskName, reason: Reason) -> None:
    """Takes a task out of the queue; a lease on it is worth nothing from then on."""
    run_change("queue.CancelTask", "tasks", task, _state, field="task", reason=reason)


@app.command("reset-stuck")
def reset_stuck(
    reason: Reason,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="In processing for longer than this.")] = 15,
) -> None:
    """Takes tasks back that have been in processing for too long; they wait for a worker again."""
    _change_many("queue.ResetStuckTasks", "taken back", reason, stuck_duration=timedelta(minutes=minutes))


@app.command()
def cleanup(
    reason: Reason,
    days: Annotated[int, typer.Option("--days", min=1, help="Ended longer ago than this.")] = 30,
) -> None:
    """Deletes tasks that ended long ago; what was tried stays with the error report."""
    _change_many("queue.CleanUpTasks", "deleted", reason, days=days)


app.command("worker")(queue_worker.worker)


def _change_many(rpc: str, done: str, reason: str, **fields: Any) -> None:
    async def work(plane: PlaneClient) -> None:
        answer = await plane.call(rpc, timeout=LONG, reason=reason, **fields)
        typer.echo(f"{formatting.plural(answer.tasks, 'task')} {done}")

    run(work)


async def _show(plane: PlaneClient, answer: Any) -> None:
    show_fields(_fields(answer.task, await id_lookup.labels(plane, [answer.task.plugin])))
    show_task_history(answer.history)
    typer.echo(f"\nits error: prunella errors show {id_lookup.short(answer.task.report)}")


def _state(task: Any) -> str:
    from prunella.v1.queue_pb2 import TaskState

    state = formatting.enum_label(TaskState, task.state)
    return f"task {id_lookup.short(task.name)} is {state}, priority {task.priority}"


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
