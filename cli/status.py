"""`prunella status`: the plane at one glance."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from cli import formatting, listings
from cli.options import Json, Watch
from cli.output import coloured, safe, show_fields, show_json, show_table
from cli.plane_client import SERVICES, TIMEOUT, UNREACHABLE, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

OVER = frozenset({"success", "rolled_back", "rollback_failed", "failed", "cancelled", "refused"})


def status(watch: Watch = False, json: Json = False) -> None:
    """Services, fleet, incidents, attempts and kill switches in a few lines."""

    async def work(plane: PlaneClient) -> int:
        serving = dict(zip(SERVICES, await asyncio.gather(*(health(plane, name) for name in SERVICES)), strict=True))
        figures = await _figures(plane, serving)
        if json:
            show_json({"services": serving, "addresses": plane.addresses, **figures})
        else:
            _show(plane, serving, figures)
        return 0 if all(status == "serving" for status in serving.values()) else UNREACHABLE

    run(work, watch=watch)


async def health(plane: PlaneClient, service: str) -> str:
    """`serving`, `not serving` or `unreachable`."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from libs.common.errors import Problem

    try:
        stub: Any = health_pb2_grpc.HealthStub(plane.channel(service))
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except Problem:
        return "unreachable"
    return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


async def _figures(plane: PlaneClient, serving: dict[str, str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if serving["ingest"] == "serving":
        plugins = [one async for one in listings.plugins(plane)]
        figures["plugins"] = dict(Counter(formatting.plugin_state(one) for one in plugins))
        figures["sessions"] = sum(one.connected for one in plugins)
        figures["releases"] = dict(Counter(f"{one.package} {one.release}" for one in plugins))
        figures["incidents"] = dict(Counter([one.state async for one in listings.incidents(plane, 1000)]))
    if serving["patcher"] == "serving":
        figures["attempts"] = dict(Counter([one.state async for one in listings.attempts(plane, 1000)]))
        answer = await plane.call("patcher.ListKillSwitches")
        figures["kill_switches"] = [one.scope for one in answer.kill_switches if one.engaged]
    if serving["queue"] == "serving":
        stats = await plane.call("queue.GetQueueStats")
        figures["tasks"], figures["errors"] = dict(stats.tasks), dict(stats.reports)
    return figures


def _show(plane: PlaneClient, serving: dict[str, str], figures: dict[str, Any]) -> None:
    rows = [(name, coloured(serving[name]), plane.addresses.get(name, "")) for name in SERVICES]
    show_table(("service", "health", "address"), rows, empty="")
    attempts = figures.get("attempts", {})
    live = {state: count for state, count in attempts.items() if state not in OVER}
    over = {state: count for state, count in attempts.items() if state in OVER}
    show_fields(
        [
            ("plugins", _counted(figures.get("plugins", {}))),
            ("sessions", str(figures.get("sessions", ""))),
            ("releases", safe(", ".join(f"{count} × {name}" for name, count in figures.get("releases", {}).items()))),
            ("incidents", _counted(figures.get("incidents", {}))),
            ("under way", _counted(live)),
            ("ended", _counted(over)),
            ("errors", _counted(figures.get("errors", {}))),
            ("tasks", _counted(figures.get("tasks", {}))),
            ("kill switch", coloured("engaged") + f": {', '.join(figures['kill_switches'])}")
            if figures.get("kill_switches")
            else ("kill switch", "not engaged" if "kill_switches" in figures else ""),
        ]
    )
    if any(status != "serving" for status in serving.values()):
        typer.echo("prunella: not every service answers; look with: prunella doctor", err=True)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {coloured(status)}" for status, count in sorted(counts.items()) if count)
