"""`prunella load`: agents that only beat, against a running plane: how many beats it takes, and how long each waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Json
from cli.output import console, show_fields, show_json
from cli.plane_client import FAILED, fail, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient
    from deploy.load.agents import LoadAgent, LoadStats

MOST_AGENTS, MOST_RATE, MOST_SECONDS = 20_000, 1000, 3600
LEAD = 0.2
SHARES = (0.5, 0.9, 0.99)

Agents = Annotated[int, typer.Option("--agents", "-n", min=1, max=MOST_AGENTS, help="How many agents.")]
Rate = Annotated[float, typer.Option("--rate", "-r", min=0.01, max=MOST_RATE, help="Beats per second of each agent.")]
Seconds = Annotated[float, typer.Option("--seconds", "-s", min=0.5, max=MOST_SECONDS, help="For how long.")]


def load(agents: Agents = 50, rate: Rate = 1.0, seconds: Seconds = 10.0, json: Json = False) -> None:
    """Puts load on the plane: agents join, beat at a fixed pace, and are retired. 1 when beats were lost."""

    async def work(plane: PlaneClient) -> int:
        from deploy.load.agents import LoadStats, joined_agents

        stats, address = LoadStats(), plane.addresses.get("ingest", "")
        ingest = plane.ingest
        with console(err=True).status(f"{agents} agents join …") as progress:
            began = time.monotonic()
            async with joined_agents(ingest, address, agents, rate, stats) as fleet:
                joining = time.monotonic() - began
                progress.update(f"{agents} agents beat for {seconds:g} s …")
                took = await _beat(fleet, seconds)
                progress.update(f"{agents} agents leave …")
        figures = load_figures(stats, agents=agents, rate=rate, took=took, joining=joining)
        if json:
            show_json(figures)
        else:
            _show(figures)
        return FAILED if stats.acknowledged < stats.sent else 0

    run(lambda plane: _grpc_errors(work(plane)))


async def _grpc_errors(work: Awaitable[int]) -> int:
    """What the plane says to agents comes as gRPC's own errors."""
    import grpc

    try:
        return await work
    except grpc.aio.AioRpcError as error:
        fail(f"agents cannot join: {error.details() or error.code().name}; look with: prunella doctor")


async def _beat(fleet: Sequence[LoadAgent], seconds: float) -> float:
    begin = time.monotonic() + LEAD
    async with asyncio.TaskGroup() as group:
        for agent in fleet:
            group.create_task(agent.run(begin, begin + seconds))
    return time.monotonic() - begin


def load_figures(stats: LoadStats, *, agents: int, rate: float, took: float, joining: float) -> dict[str, Any]:
    """The figures of a run; delays in milliseconds, None without any."""
    delays = sorted(stats.delays)
    return {
        "agents": agents,
        "rate": rate,
        "seconds": round(took, 2),
        "join_seconds": round(joining, 2),
        "beats_sent": stats.sent,
        "beats_acknowledged": stats.acknowledged,
        "beats_lost": stats.sent - stats.acknowledged,
        "streams_broken": stats.broken,
        "beats_per_second": round(stats.acknowledged / took, 1) if took > 0 else 0.0,
        "latency_ms": {
            **{f"p{share * 100:g}": _milliseconds(delays, share) for share in SHARES},
            "max": _milliseconds(delays, 1.0),
        },
    }


def _milliseconds(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank; None without values."""
    if not ordered:
        return None
    return round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)


def _show(figures: dict[str, Any]) -> None:
    wanted = figures["agents"] * figures["rate"]
    delays = ", ".join(f"{name} {value:g}" for name, value in figures["latency_ms"].items() if value is not None)
    lost = f"{figures['beats_lost']} of {figures['beats_sent']}" if figures["beats_lost"] else "none"
    show_fields(
        [
            ("agents", f"{figures['agents']}, joined in {figures['join_seconds']:g} s"),
            ("beats", f"{figures['beats_per_second']:g} per second, durable (asked for: {wanted:g})"),
            ("waits", f"{delays} ms from due to durable" if delays else "no beat was acknowledged"),
            ("lost", lost),
            ("streams", f"{figures['streams_broken']} broke" if figures["streams_broken"] else "all held"),
        ]
    )
