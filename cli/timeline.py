"""`prunella timeline`: everything that happened, one line per fact."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings
from cli.options import Facts, IncidentAbout, Json, Limit, PluginAbout
from cli.output import console, plain, safe, show_json
from cli.plane_client import UNREACHABLE_REASONS, request, run

if TYPE_CHECKING:
    from rich.console import Console

    from cli.plane_client import PlaneClient

GRAVE = frozenset(
    {
        "incident_escalated",
        "report_escalated",
        "attempt_rollback_failed",
        "attempt_unconfirmed",
        "plugin_quarantined",
        "kill_switch_engaged",
        "audit_violated",
        "fact_dead_lettered",
    }
)
GOOD = frozenset(
    {"incident_mitigated", "attempt_succeeded", "kill_switch_released", "quarantine_released", "report_resolved"}
)
BAD = frozenset(
    {
        "incident_opened",
        "incident_reopened",
        "attempt_failed",
        "attempt_rolling_back",
        "attempt_rolled_back",
        "attempt_refused",
        "error_reported",
    }
)
# A watch outlives a restart of ops.
PATIENCE = 60
PAUSE = 1.0


def timeline(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on as things happen, until Ctrl-C.")] = False,
    plugin: PluginAbout = "",
    incident: IncidentAbout = "",
    fact: Facts = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Everything that happened, oldest first. With --watch --json: one JSON object per line."""

    async def work(plane: PlaneClient) -> None:
        filters = await id_lookup.filters(plane, plugin=plugin, incident=incident, facts=fact)
        past = [entry async for entry in listings.entries(plane, limit, **filters)][::-1]
        after = past[-1].position if past else 0
        past.sort(key=_sort_key)
        screen = console()
        if json and not watch:
            show_json([plain(entry) for entry in past])
            return
        for entry in past:
            _show(screen, entry, json=json)
        if not past and not watch:
            typer.echo("nothing happened yet", err=True)
        if watch:
            await _watch(plane, filters, after, screen, json=json)

    run(work)


async def _watch(plane: PlaneClient, filters: dict[str, Any], after: int, screen: Console, *, json: bool) -> None:
    from libs.common.errors import Unavailable

    failures = 0
    while True:
        try:
            async for answer in plane.method("ops.WatchTimeline")(
                request("ops.WatchTimeline", after_position=after, **filters)
            ):
                failures = 0
                after = answer.entry.position
                _show(screen, answer.entry, json=json)
        except Unavailable as problem:
            failures += 1
            if problem.reason not in UNREACHABLE_REASONS or failures > PATIENCE:
                raise
        await asyncio.sleep(PAUSE)


def _show(screen: Console, entry: Any, *, json: bool) -> None:
    if json:
        show_json(plain(entry), indent=None)
        sys.stdout.flush()
        return
    when = formatting.to_datetime(entry.event.time)
    clock = when.astimezone().strftime("%H:%M:%S.%f")[:-3] if when else formatting.NO_VALUE
    screen.print(f"[dim]{clock}[/]  {_coloured(entry)}", overflow="ellipsis", no_wrap=True)


def _sort_key(entry: Any) -> tuple[int, int, int]:
    """Facts arrive in any order; people read them in the order in which they happened."""
    return entry.event.time.seconds, entry.event.time.nanos, entry.position


def _coloured(entry: Any) -> str:
    line = safe(entry.headline)
    for facts, colour in ((GRAVE, "bold magenta"), (GOOD, "green"), (BAD, "red")):
        if entry.fact in facts:
            return f"[{colour}]{line}[/]"
    return line


async def story(plane: PlaneClient, incident: str) -> None:
    """The lines of one incident, with the time since it opened."""
    entries = sorted([entry async for entry in listings.entries(plane, 500, incident=incident)], key=_sort_key)
    screen = console()
    start = formatting.to_datetime(entries[0].event.time) if entries else None
    for entry in entries:
        when = formatting.to_datetime(entry.event.time)
        since = (when - start).total_seconds() if when and start else 0.0
        screen.print(
            f"[dim]+{formatting.duration(max(0.0, since)):>7}[/]  {_coloured(entry)}", overflow="ellipsis", no_wrap=True
        )
