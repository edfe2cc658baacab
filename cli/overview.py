"""`prunella overview`: active incidents, recent outcomes, and what needs your attention."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting
from cli.options import Json, Watch
from cli.output import coloured, console, plain, safe, show_json
from cli.plane_client import MAX_FAILURES, UNREACHABLE_REASONS, WATCH_SECONDS, run

if TYPE_CHECKING:
    from rich.console import Group

    from cli.plane_client import PlaneClient

SEVERITIES = ("critical", "high", "medium", "low", "unknown")

Merchant = Annotated[str, typer.Option("--merchant", help="Only what concerns this merchant.")]
Lines = Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most so many lines of each.")]


def overview(watch: Watch = False, merchant: Merchant = "", limit: Lines = 20, json: Json = False) -> None:
    """The plane in ten seconds: active incidents, recent outcomes, what needs your attention."""

    async def work(plane: PlaneClient) -> None:
        if watch:
            await _watch(plane, merchant, limit, json=json)
            return
        answer = await _ask(plane, merchant, limit)
        if json:
            show_json(plain(answer))
        else:
            console().print(picture(answer))

    run(work)


async def _ask(plane: PlaneClient, merchant: str, limit: int) -> Any:
    return await plane.call("ops.GetOverview", merchant=merchant, limit=limit)


async def _watch(plane: PlaneClient, merchant: str, limit: int, *, json: bool) -> None:
    from rich.live import Live

    screen = console()
    if json or not screen.is_terminal:
        async for answer in _again(plane, merchant, limit):
            if json:
                show_json(plain(answer), indent=None)
            else:
                screen.print(picture(answer))
            sys.stdout.flush()
        return
    with Live(console=screen, refresh_per_second=4) as live:
        async for answer in _again(plane, merchant, limit):
            live.update(picture(answer))


async def _again(plane: PlaneClient, merchant: str, limit: int) -> Any:
    from libs.common.errors import Unavailable

    failures = 0
    while True:
        try:
            yield await _ask(plane, merchant, limit)
            failures = 0
        except Unavailable as problem:
            failures += 1
            if problem.reason not in UNREACHABLE_REASONS or failures > MAX_FAILURES:
                raise
        await asyncio.sleep(WATCH_SECONDS)


def picture(answer: Any) -> Group:
    """The overview as people see it."""
    from rich.console import Group
    from rich.text import Text

    now = formatting.to_datetime(answer.time) or datetime.now(UTC)
    parts: list[str] = [_services(answer)]
    parts += ["", _title("active incidents", answer.active_by_severity, SEVERITIES, "none")]
    parts += [
        f"  {_severity(one)}  {safe(one.line)}  [dim]{formatting.ago(one.open_time, now)}[/]"
        for one in answer.active_incidents
    ]
    parts += ["", f"[bold]last 24 h[/]  {_recent(answer.recent)}"]
    parts += ["", _title("needs attention", answer.attention_by_kind, (), "nothing")]
    for one in answer.attention:
        parts.append(f"  {_severity(one)}  {safe(one.line)}  [dim]{formatting.ago(one.since_time, now)}[/]")
        parts.append(f"            [cyan]{safe(one.command)}[/]")
    parts += ["", f"[bold]fleet[/]  {_fleet(answer)}", f"[bold]queue[/]  {_queue(answer)}"]
    return Group(*(Text.from_markup(part, overflow="ellipsis") for part in parts))


def _severity(one: Any) -> str:
    from prunella.v1.events_pb2 import Severity

    word = formatting.enum_label(Severity, one.severity)
    return coloured(word) + " " * max(0, 8 - len(word))


def _title(name: str, counts: Any, order: tuple[str, ...], empty: str) -> str:
    keys = [key for key in order if key in counts] or sorted(counts)
    parts = ", ".join(f"{counts[key]} {coloured(key.replace('_', ' '))}" for key in keys if counts[key])
    return f"[bold]{name}[/]  {parts or f'[green]{empty}[/]'}"


def _services(answer: Any) -> str:
    if not answer.services:
        return "[bold]services[/]  no data yet"
    parts = ", ".join(f"{one.service} {coloured(one.health.replace('_', ' '))}" for one in answer.services)
    return f"[bold]services[/]  {parts}"


def _recent(recent: Any) -> str:
    if not (recent.opened or recent.healed or recent.closed or recent.escalated or recent.attempts):
        return "nothing happened"
    parts = [f"{recent.opened} opened", f"{recent.healed} [green]healed[/]", f"{recent.closed} closed"]
    parts += [f"{recent.escalated} [magenta]escalated[/]"] if recent.escalated else []
    parts += [f"{count} {coloured(state)}" for state, count in sorted(recent.attempts.items()) if state != "success"]
    return ", ".join(parts)


def _fleet(answer: Any) -> str:
    if not answer.HasField("fleet"):
        return "no data (ingest does not answer)"
    fleet = answer.fleet
    health = ", ".join(f"{count} {coloured(word)}" for word, count in sorted(fleet.by_health.items()))
    parts = ", ".join(f"{part.plugins} × {safe(part.package)} {safe(part.release)}" for part in fleet.groups[:5])
    connected = f"{fleet.connected} connected"
    return " · ".join(filter(None, (f"{fleet.plugins} plugins", connected, health, parts)))


def _queue(answer: Any) -> str:
    if not answer.HasField("queue"):
        return "no data"
    counts = [f"{count} {coloured(state)}" for state, count in sorted(answer.queue.tasks.items()) if count]
    reports = [f"{count} {coloured(state)}" for state, count in sorted(answer.queue.reports.items()) if count]
    tasks = f"tasks {', '.join(counts)}" if counts else "no task"
    parts = f"{tasks} · {f'''errors {', '.join(reports)}''' if reports else 'no error report'}"
    if answer.queue.HasField("oldest_waiting_seconds"):
        parts += f" · the oldest waits for {formatting.duration(answer.queue.oldest_waiting_seconds)}"
    return parts
