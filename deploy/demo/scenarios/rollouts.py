"""The scenarios of rollouts: a good release reaches everybody, a bad one is halted where it began; on simulated agents.

Rule: as for the others. What a rollout came to is read from its facts; what the plugins run, from the plugins.
"""

from __future__ import annotations

import uuid

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios import operators
from deploy.demo.scenarios.governance import not_running, plugin_ids
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario, now, wait_for_delivery
from libs.common.facts import fact_name
from prunella.v1 import patcher_pb2
from prunella.v1.events_pb2 import Event

TILLS, BASKETS = 200, 30
AGAINST = ("reverted", "broken", "silent", "rollback_failed")
SHOWN = 5
WAVES = ("5", "25%", "100%")
BUDGET = 40
CREATE_SECONDS = 30.0
ROLLOUT_SECONDS = 200.0
ENDS = ("rollout_succeeded", "rollout_aborted", "rollout_paused")
OUTCOMES = {
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
    steps = [(name, getattr(event, name)) for event in ordered if (name := fact_name(event)) in OUTCOMES]
    return ", ".join(OUTCOMES[name].format(wave=fields.wave) for name, fields in steps)


async def roll_out(ctx: Context, result: Result, package: str, target: str) -> None:
    """Creates a rollout; `result.rollout` says which."""
    request = patcher_pb2.CreateRolloutRequest(
        package=package, target=target, reason="the demo brings it to all", request_id=str(uuid.uuid4())
    )
    request.settings.waves.extend(WAVES)
    request.settings.budget = BUDGET
    request.settings.soak.FromSeconds(1)
    async with operators.as_operator(ctx, operators.AUTHOR) as client:
        result.fault = now()
        made = (await client.patcher.CreateRollout(request, timeout=CREATE_SECONDS)).rollout
    result.rollout = made.name.rpartition("/")[2]


async def wait_ended(ctx: Context, result: Result, *facts: str) -> None:
    """Waits for the end of the rollout and for all that led to it, and notes its figures."""
    await ctx.timeline.wait_for(facts, ROLLOUT_SECONDS, where=lambda event: about(event, result.rollout))
    await wait_for_delivery(ctx, lambda event: about(event, result.rollout))
    request = patcher_pb2.GetRolloutRequest(name=f"rollouts/{result.rollout}", member_states=AGAINST)
    answer = await ctx.client.patcher.GetRollout(request, timeout=CALL_SECONDS)
    found, figures = answer.rollout, answer.rollout.figures
    counted = f"{figures.healthy} of {figures.plugins} healthy, {figures.counted_against} against"
    result.notes.append(f"{counted}: {found.reason}")
    result.notes += [f"{one.label} {one.state}: {one.reason}" for one in answer.members[:SHOWN]]


async def rollout_good(ctx: Context, result: Result) -> None:
    """A good release goes to 200 plugins in three waves, after two people agreed; each wave proves itself."""
    # Before anything else: a plan names the policy it was made under, and another policy asks people anew.
    await operators.raise_budget(ctx, BUDGET)
    await ctx.fleet.publish("till", "1.1.0", "1.2.3")
    agents = await ctx.fleet.add_simulated(TILLS, "till", "1.1.0")
    await roll_out(ctx, result, "till", "1.2.3")
    # So many plugins at once are of high impact.
    for name in (operators.FIRST, operators.SECOND):
        await operators.approve(ctx, f"rollouts/{result.rollout}", name)
    await wait_ended(ctx, result, *ENDS, "rollout_halted")
    if others := not_running(agents, "1.2.3"):
        raise Mismatch(f"{len(others)} plugins do not run 1.2.3: {', '.join(others[:5])}")


async def rollout_bad(ctx: Context, result: Result) -> None:
    """A release that spoils half of the webhooks is halted in the first wave, and the wave is taken back."""
    await ctx.fleet.publish("basket", "1.2.3", "1.3.0")
    agents = await ctx.fleet.add_simulated(BASKETS, "basket", "1.2.3")
    await roll_out(ctx, result, "basket", "1.3.0")
    await wait_ended(ctx, result, *ENDS, "rollout_rolled_back")
    baskets = plugin_ids(agents)
    reached = {event.plugin for event in ctx.timeline.facts("attempt_applied") if event.plugin in baskets}
    result.notes.append(f"{len(reached)} of {BASKETS} plugins met it")
    if others := not_running(agents, "1.2.3"):
        raise Mismatch(f"{len(others)} plugins still run 1.3.0: {', '.join(others[:5])}")


ROLLOUTS = (
    Scenario("rollout_good", "till", "wave 1 passed, wave 2 passed, wave 3 passed, succeeded", rollout_good, 220.0),
    Scenario("rollout_bad", "basket", "halted in wave 1, taken back", rollout_bad, 150.0),
)
