"""Plays the scenarios on a plane and makes one document about them.

Rule: scenarios that do not disturb each other play at once, staggered; those of one lane share something and play one
after the other; what takes a service down plays alone. The document passes only when every scenario ended as it must,
nothing was lost, and the figures, the stories and the audit log say the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from deploy.demo import audit_comparison, kpi_comparison, loss_checks
from deploy.demo.fleet import Fleet
from deploy.demo.narration import Narrator
from deploy.demo.operator_client import OperatorClient
from deploy.demo.queue_workers import QueueWorkers, traces_endpoint
from deploy.demo.scenarios import error_results, incident_results, rollout_results
from deploy.demo.scenarios.config_drift import CONFIG_DRIFT
from deploy.demo.scenarios.error_reports import ERROR_REPORTS
from deploy.demo.scenarios.governance import GOVERNANCE
from deploy.demo.scenarios.host_faults import HOST_FAULTS
from deploy.demo.scenarios.plugin_faults import EXCLUSIVE, PLUGIN_FAULTS
from deploy.demo.scenarios.rollouts import ROLLOUTS
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario
from deploy.demo.timeline_follower import TimelineFollower
from deploy.local.plane import Plane
from libs.common.errors import Problem

# So many that the relays that are broken here on purpose are no storm.
SIMULATED_AGENTS = 60
STAGGER_SECONDS = 3.0
Say = Callable[[str], None]
ResultBuilder = Callable[[Context, Scenario, Result, str], Awaitable[dict[str, Any]]]
WITHOUT_INCIDENT = (*GOVERNANCE, *ROLLOUTS)


def select(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, all when none is named, in the order they are listed in, whatever order they are
    named in: in a lane it matters who comes first. Raises KeyError for one that does not exist.
    """
    known = {
        scenario.name: scenario
        for scenario in (
            *PLUGIN_FAULTS,
            *HOST_FAULTS,
            *CONFIG_DRIFT,
            *ERROR_REPORTS,
            *GOVERNANCE,
            *ROLLOUTS,
            *EXCLUSIVE,
        )
    }
    wanted = {known[name].name for name in names} or set(known)
    return [scenario for scenario in known.values() if scenario.name in wanted]


async def play(ctx: Context, scenario: Scenario) -> dict[str, Any]:
    """Plays one scenario to its end, whatever that is."""
    result, problem = Result(), ""
    ctx.say(f"{scenario.name}: {(scenario.play.__doc__ or '').splitlines()[0]}")
    try:
        async with asyncio.timeout(scenario.seconds):
            await scenario.play(ctx, result)
    except (Mismatch, TimeoutError, Problem, OSError) as error:
        problem = str(error) or f"not over within {scenario.seconds:g} s"
    found = await result_builder(scenario, result)(ctx, scenario, result, problem)
    took = f" in {found['total_s']:.1f} s" if found["total_s"] else ""
    ctx.say(f"{scenario.name}: {'ok' if found['ok'] else 'NOT OK'}: {found['outcome']}{took}")
    if shop := ctx.fleet.shops.get(scenario.label):
        # It is over; the others have the machine to themselves.
        await shop.stop()
    return found


def result_builder(scenario: Scenario, result: Result) -> ResultBuilder:
    """What turns the facts of a scenario into its entry."""
    if scenario in ERROR_REPORTS:
        return error_results.document
    # A storm holds many incidents, and a rollout has none.
    return (
        incident_results.document if result.incident or scenario not in WITHOUT_INCIDENT else rollout_results.document
    )


def lanes(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """Scenarios in the order given, those of one lane together at the place of the first of them."""
    found: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        found.setdefault(scenario.lane or scenario.name, []).append(scenario)
    return list(found.values())


async def play_lane(ctx: Context, scenarios: Sequence[Scenario], delay: float) -> list[dict[str, Any]]:
    """Plays scenarios one after the other."""
    await asyncio.sleep(delay)
    return [await play(ctx, scenario) for scenario in scenarios]


async def play_all(ctx: Context, scenarios: Sequence[Scenario]) -> list[dict[str, Any]]:
    """Those that may play together, then those that play alone; in the order given."""
    together = [scenario for scenario in scenarios if scenario not in EXCLUSIVE]
    # What takes longest begins first: the errors, one after the other, and silence, which is noticed late.
    queued = sorted(lanes(together), key=lambda lane: -sum(scenario.seconds for scenario in lane))
    plays = [play_lane(ctx, lane, STAGGER_SECONDS * place) for place, lane in enumerate(queued)]
    found = {one["name"]: one for played in await asyncio.gather(*plays) for one in played}
    for scenario in scenarios:
        if scenario in EXCLUSIVE:
            found[scenario.name] = await play(ctx, scenario)
    return [found[scenario.name] for scenario in scenarios]


async def run(plane: Plane, say: Say, names: Sequence[str] = (), simulated: int = SIMULATED_AGENTS) -> dict[str, Any]:
    """Plays scenarios on a running plane and returns the document."""
    began, scenarios = time.monotonic(), select(names)
    async with OperatorClient(plane.addresses, plane.key) as client:
        fleet, timeline = Fleet(client, plane.state, say), TimelineFollower(client)
        workers = QueueWorkers(client, fleet.folder, say, otlp=traces_endpoint(plane.http))
        await timeline.start()
        timeline.subscribe(Narrator(fleet, say).narrate)
        try:
            await fleet.start()
            await fleet.add_simulated(simulated)
            if any(scenario in ERROR_REPORTS for scenario in scenarios):
                await workers.approve()
                await workers.start()
            found = await play_all(Context(plane, client, fleet, timeline, workers, say), scenarios)
        finally:
            await workers.stop()
            await fleet.stop()
            await timeline.stop()
        fact_counts, lost = await loss_checks.settled_losses(plane.database_url, plane.nats_url)
        beats, missing = await loss_checks.beats(client, fleet.simulated)
        kpis, different = await kpi_comparison.compare(client, fact_counts, found)
        entries, otherwise = await audit_comparison.compare(client, plane.state.folder, fact_counts, found)
    different += otherwise
    lost += missing
    for line in different:
        say(f"told otherwise: {line}")
    for line in lost:
        say(f"lost: {line}")
    return {
        "scenarios": found,
        "facts": fact_counts,
        "beats": asdict(beats),
        "kpis": kpis,
        "audit_entries": entries,
        "different": different,
        "lost": len(lost),
        "duration_s": round(time.monotonic() - began, 1),
    }


def passed(found: dict[str, Any]) -> bool:
    """Whether every scenario ended as it must, nothing was lost, and ops shows what happened."""
    return not found["lost"] and not found["different"] and all(scenario["ok"] for scenario in found["scenarios"])
