"""The scenarios of rollouts: a good release reaches everybody, a bad one is halted where it began; on light agents.

Rule: as for the others. What a rollout came to is read from its facts; what the plugins run, from the plugins.
"""

from __future__ import annotations

from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios import people
from deploy.demo.scenarios.reins import mixed, plugins
from deploy.demo.scenarios.scene import Mismatch, Report, Scenario, Scene, heard, now
from libs.common.facts import fact_name
from prunella.v1 import patcher_pb2
from prunella.v1.events_pb2 import Event

TILLS, BASKETS = 200, 30
AGAINST = ("reverted", "broken", "silent", "rollback_failed")
SHOWN = 5
WAVES = ("5", "25%", "100%")
BUDGET = 40
DRAW_SECONDS = 30.0
ROLLOUT_SECONDS = 200.0
ENDS = ("rollout_succeeded", "rollout_aborted", "rollout_paused")
WORDS = {
    "rollout_wave_passed": "wave {wave} passed",
    "rollout_halted": "halted in wave {wave}",
    "rollout_rolled_back": "taken back",
    "rollout_paused": "paused in wave {wave}",
    "rollout_aborted": "aborted",
    "rollout_succeeded": "succeeded",
}


def about(event: Event, rollout: str) -> bool:
    """Whether a fact tells of this rollout (its id)."""
    name = fact_name(event)
    return name.startswith("rollout_") and getattr(event, name).rollout.rpartition("/")[2] == rollout


def outcome(events: list[Event]) -> str:
    """The story of a rollout in a few words, such as `wave 1 passed, succeeded`."""
    ordered = sorted(events, key=lambda event: event.time.ToNanoseconds())
    told = [(name, getattr(event, name)) for event in ordered if (name := fact_name(event)) in WORDS]
    return ", ".join(WORDS[name].format(wave=fields.wave) for name, fields in told)


async def roll_out(scene: Scene, report: Report, package: str, target: str) -> None:
    """Creates a rollout; `report.rollout` says which."""
    request = patcher_pb2.CreateRolloutRequest(
        package=package, target=target, reason="the demo brings it to all", request_id=f"demo-{package}-{target}"
    )
    request.settings.waves.extend(WAVES)
    request.settings.budget = BUDGET
    request.settings.soak.FromSeconds(1)
    async with people.person(scene, people.AUTHOR) as reach:
        report.fault = now()
        made = (await reach.patcher.CreateRollout(request, timeout=DRAW_SECONDS)).rollout
    report.rollout = made.name.rpartition("/")[2]


async def over(scene: Scene, report: Report, *facts: str) -> None:
    """Waits for the end of the rollout and for all that led to it, and notes its figures."""
    await scene.chronicle.hear(facts, ROLLOUT_SECONDS, where=lambda event: about(event, report.rollout))
    await heard(scene, lambda event: about(event, report.rollout))
    request = patcher_pb2.GetRolloutRequest(name=f"rollouts/{report.rollout}", member_states=AGAINST)
    answer = await scene.reach.patcher.GetRollout(request, timeout=CALL_SECONDS)
    found, figures = answer.rollout, answer.rollout.figures
    counted = f"{figures.healthy} of {figures.plugins} healthy, {figures.counted_against} against"
    report.notes.append(f"{counted}: {found.reason}")
    report.notes += [f"{one.label} {one.state}: {one.reason}" for one in answer.members[:SHOWN]]


async def rollout_good(scene: Scene, report: Report) -> None:
    """A good release goes to 200 plugins in three waves, after two people agreed; each wave proves itself."""
    # Before anything else: a plan names the policy it was made under, and another policy asks people anew.
    await people.widen(scene, BUDGET)
    await scene.fleet.publish("till", "1.1.0", "1.2.3")
    lights = await scene.fleet.add_lights(TILLS, "till", "1.1.0")
    await roll_out(scene, report, "till", "1.2.3")
    # So many plugins at once are of high impact.
    for name in (people.FIRST, people.SECOND):
        await people.agree(scene, f"rollouts/{report.rollout}", name)
    await over(scene, report, *ENDS, "rollout_halted")
    if others := mixed(lights, "1.2.3"):
        raise Mismatch(f"{len(others)} plugins do not run 1.2.3: {', '.join(others[:5])}")


async def rollout_bad(scene: Scene, report: Report) -> None:
    """A release that spoils half of the webhooks is halted in the first wave, and the wave is taken back."""
    await scene.fleet.publish("basket", "1.2.3", "1.3.0")
    lights = await scene.fleet.add_lights(BASKETS, "basket", "1.2.3")
    await roll_out(scene, report, "basket", "1.3.0")
    await over(scene, report, *ENDS, "rollout_rolled_back")
    baskets = plugins(lights)
    met = {event.plugin for event in scene.chronicle.told("attempt_applied") if event.plugin in baskets}
    report.notes.append(f"{len(met)} of {BASKETS} plugins met it")
    if others := mixed(lights, "1.2.3"):
        raise Mismatch(f"{len(others)} plugins still run 1.3.0: {', '.join(others[:5])}")


ROLLOUTS = (
    Scenario("rollout_good", "till", "wave 1 passed, wave 2 passed, wave 3 passed, succeeded", rollout_good, 220.0),
    Scenario("rollout_bad", "basket", "halted in wave 1, taken back", rollout_bad, 150.0),
)
