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

from deploy.demo import audited, checks, figures
from deploy.demo.chronicle import Chronicle
from deploy.demo.fleet import Fleet
from deploy.demo.narration import Narrator
from deploy.demo.reach import Reach
from deploy.demo.scenarios import measure, resolution, steering
from deploy.demo.scenarios.drift import DRIFT
from deploy.demo.scenarios.errors import ERRORS
from deploy.demo.scenarios.reins import REINS
from deploy.demo.scenarios.rollouts import ROLLOUTS
from deploy.demo.scenarios.scene import Mismatch, Report, Scenario, Scene
from deploy.demo.scenarios.stories import ALONE, SCENARIOS
from deploy.demo.workers import Workers, spans_to
from deploy.local.plane import Plane
from libs.common.errors import Problem

# So many that the relays that are broken here on purpose are no storm.
LIGHTS = 60
STAGGER_SECONDS = 3.0
Say = Callable[[str], None]
Tell = Callable[[Scene, Scenario, Report, str], Awaitable[dict[str, Any]]]
STEERED = (*REINS, *ROLLOUTS)


def chosen(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, all when none is named, in the order they are listed in, whatever order they are
    named in: in a lane it matters who comes first. Raises KeyError for one that does not exist.
    """
    known = {scenario.name: scenario for scenario in (*SCENARIOS, *DRIFT, *ERRORS, *REINS, *ROLLOUTS, *ALONE)}
    wanted = {known[name].name for name in names} or set(known)
    return [scenario for scenario in known.values() if scenario.name in wanted]


async def play(scene: Scene, scenario: Scenario) -> dict[str, Any]:
    """Plays one scenario to its end, whatever that is."""
    report, problem = Report(), ""
    scene.say(f"{scenario.name}: {(scenario.play.__doc__ or '').splitlines()[0]}")
    try:
        async with asyncio.timeout(scenario.seconds):
            await scenario.play(scene, report)
    except (Mismatch, TimeoutError, Problem, OSError) as error:
        problem = str(error) or f"not over within {scenario.seconds:g} s"
    found = await told_of(scenario, report)(scene, scenario, report, problem)
    took = f" in {found['total_s']:.1f} s" if found["total_s"] else ""
    scene.say(f"{scenario.name}: {'ok' if found['ok'] else 'NOT OK'}: {found['outcome']}{took}")
    if shop := scene.fleet.shops.get(scenario.label):
        # Its story is told; the others have the machine to themselves.
        await shop.stop()
    return found


def told_of(scenario: Scenario, report: Report) -> Tell:
    """What turns the facts of a scenario into its entry."""
    if scenario in ERRORS:
        return resolution.document
    # A storm holds many incidents, and a rollout has none.
    return measure.document if report.incident or scenario not in STEERED else steering.document


def lanes(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """Scenarios in the order given, those of one lane together at the place of the first of them."""
    found: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        found.setdefault(scenario.lane or scenario.name, []).append(scenario)
    return list(found.values())


async def play_lane(scene: Scene, scenarios: Sequence[Scenario], delay: float) -> list[dict[str, Any]]:
    """Plays scenarios one after the other."""
    await asyncio.sleep(delay)
    return [await play(scene, scenario) for scenario in scenarios]


async def play_all(scene: Scene, scenarios: Sequence[Scenario]) -> list[dict[str, Any]]:
    """Those that may play together, then those that play alone; in the order given."""
    together = [scenario for scenario in scenarios if scenario not in ALONE]
    # What takes longest begins first: the errors, one after the other, and silence, which is noticed late.
    queued = sorted(lanes(together), key=lambda lane: -sum(scenario.seconds for scenario in lane))
    plays = [play_lane(scene, lane, STAGGER_SECONDS * place) for place, lane in enumerate(queued)]
    found = {one["name"]: one for played in await asyncio.gather(*plays) for one in played}
    for scenario in scenarios:
        if scenario in ALONE:
            found[scenario.name] = await play(scene, scenario)
    return [found[scenario.name] for scenario in scenarios]


async def run(plane: Plane, say: Say, names: Sequence[str] = (), lights: int = LIGHTS) -> dict[str, Any]:
    """Plays scenarios on a running plane and returns the document."""
    began, scenarios = time.monotonic(), chosen(names)
    async with Reach(plane.addresses, plane.key) as reach:
        fleet, chronicle = Fleet(reach, plane.state, say), Chronicle(reach)
        workers = Workers(reach, fleet.folder, say, otlp=spans_to(plane.http))
        await chronicle.start()
        chronicle.listen(Narrator(fleet, say).hear)
        try:
            await fleet.start()
            await fleet.add_lights(lights)
            if any(scenario in ERRORS for scenario in scenarios):
                await workers.approve()
                await workers.start()
            found = await play_all(Scene(plane, reach, fleet, chronicle, workers, say), scenarios)
        finally:
            await workers.stop()
            await fleet.stop()
            await chronicle.stop()
        counted, lost = await checks.settled(plane.database_url, plane.nats_url)
        beats, missing = await checks.beats(reach, fleet.lights)
        kpis, different = await figures.compared(reach, counted, found)
        entries, otherwise = await audited.compared(reach, plane.state.folder, counted, found)
    different += otherwise
    lost += missing
    for line in different:
        say(f"told otherwise: {line}")
    for line in lost:
        say(f"lost: {line}")
    return {
        "scenarios": found,
        "facts": counted,
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
