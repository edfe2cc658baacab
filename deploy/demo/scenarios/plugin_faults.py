"""The scenarios of single plugins: a fault in one of them, and how it is healed.

Rule: each breaks something for real, in the world and never in the plane's own data, waits for the end, and looks at
the plugin itself afterwards.
"""

from __future__ import annotations

import asyncio

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios.scenario import ENDS, Context, Mismatch, Result, Scenario, now, wait_for_delivery
from deploy.demo.shop import Shop
from libs.common.names import new_id
from prunella.v1 import ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event

OPEN_SECONDS = 40.0
HEAL_SECONDS = 90.0
SILENCE_SECONDS = 120.0
HELD_SECONDS = 4.0
SPANS_SECONDS = 0.6
LOOK_SECONDS = 0.05


async def wait_opened(ctx: Context, result: Result, kind: str) -> None:
    """Waits for the incident of the scenario's plugin."""
    event = await ctx.timeline.wait_for("incident_opened", OPEN_SECONDS, plugin=result.plugin)
    result.incident = event.incident
    if event.incident_opened.type != kind:
        raise Mismatch(f"the incident is {event.incident_opened.type}, not {kind}")


async def wait_ended(ctx: Context, result: Result, timeout: float = HEAL_SECONDS) -> Event:
    """Waits for the end of the incident, and for all that led to it: facts come in any order."""
    end = await ctx.timeline.wait_for(ENDS, timeout, incident=result.incident)
    await wait_for_delivery(ctx, lambda event: event.incident == result.incident)
    return end


async def check_runs(ctx: Context, label: str, release: str) -> None:
    """Looks at the plugin itself: what its supervisor runs, and that it is well."""
    state = await ctx.fleet.shops[label].ready()
    if state["release"] != release:
        raise Mismatch(f"{label} runs {state['release']}, not {release}")


async def wait_attempt(ctx: Context, result: Result) -> None:
    """Waits until the plugin has an attempt: asked of patcher, since the timeline tells of it too late to interfere."""
    request = patcher_pb2.ListAttemptsRequest(plugin=result.plugin, page_size=1)
    for _ in range(int(HEAL_SECONDS / LOOK_SECONDS)):
        if (await ctx.client.patcher.ListAttempts(request, timeout=CALL_SECONDS)).attempts:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise Mismatch("nothing was tried")


async def run_broken(ctx: Context, result: Result, label: str, version: str) -> Shop:
    """A plugin that runs a broken release, and customers who send it webhooks."""
    shop = await ctx.fleet.add(label, version, traffic=False)
    result.plugin, result.fault = shop.plugin, now()
    shop.traffic.start()
    return shop


async def break_webhooks(ctx: Context, result: Result, label: str, version: str) -> None:
    """A plugin that runs a broken release, and the incident that tells of it."""
    await run_broken(ctx, result, label, version)
    await wait_opened(ctx, result, "webhook_fail_rate")


async def heal_patch(ctx: Context, result: Result) -> None:
    """Release 1.2.0 fails on 60 % of its webhooks; 1.2.3 is staged, applied, watched and kept."""
    await break_webhooks(ctx, result, "shop-1", "1.2.0")
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-1", "1.2.3")


async def staging_refuses(ctx: Context, result: Result) -> None:
    """The first remedy, 1.2.4, fails its smoke tests in the sandbox and never reaches the plugin."""
    await break_webhooks(ctx, result, "shop-2", "1.2.1")
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-2", "1.2.3")
    applied = ctx.timeline.facts("attempt_applied", incident=result.incident)
    if len(applied) != 1:
        raise Mismatch(f"{len(applied)} releases were applied, only the second should have been")


async def bad_patch_rolled_back(ctx: Context, result: Result) -> None:
    """The first remedy, 1.3.0, passes staging, fails under load in probation, and is taken back."""
    await break_webhooks(ctx, result, "shop-3", "1.2.2")
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-3", "1.2.3")


async def plugin_down(ctx: Context, result: Result) -> None:
    """The plugin is killed under its living supervisor and started again by the plane."""
    shop = await ctx.fleet.add("shop-4")
    result.plugin, result.fault = shop.plugin, now()
    shop.kill_plugin()
    await wait_opened(ctx, result, "plugin_down")
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-4", "1.2.3")


async def silent_plugin(ctx: Context, result: Result) -> None:
    """The supervisor itself is killed: nothing can reach the plugin, so a person is asked, within two minutes."""
    shop = await ctx.fleet.add("shop-5")
    result.plugin, result.fault, result.traced = shop.plugin, now(), False
    await shop.kill_supervisor()
    event = await ctx.timeline.wait_for("incident_escalated", SILENCE_SECONDS, plugin=result.plugin)
    result.incident = event.incident
    await wait_for_delivery(ctx, lambda event: event.incident == result.incident)
    if event.incident_escalated.type != "heartbeat_missed":
        raise Mismatch(f"a person was asked about {event.incident_escalated.type}, not about silence")


async def kill_switch(ctx: Context, result: Result) -> None:
    """Engaged while the update is on its way: nothing is applied. Released: it goes on."""
    await run_broken(ctx, result, "shop-6", "1.2.0")
    await wait_attempt(ctx, result)
    scope = f"plugins/{result.plugin}"
    engage = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason="the demo pulls the switch", request_id=new_id())
    engaged = (await ctx.client.patcher.EngageKillSwitch(engage, timeout=10)).kill_switch
    await wait_opened(ctx, result, "webhook_fail_rate")
    await ctx.timeline.wait_for("attempt_held", HEAL_SECONDS, incident=result.incident)
    await asyncio.sleep(HELD_SECONDS)
    if ctx.timeline.facts("apply_authorized", "attempt_applied", incident=result.incident):
        raise Mismatch("something was applied under the kill switch")
    await check_runs(ctx, "shop-6", "1.2.0")
    release = patcher_pb2.ReleaseKillSwitchRequest(
        scope=scope, reason="the demo goes on", request_id=new_id(), epoch=engaged.epoch
    )
    await ctx.client.patcher.ReleaseKillSwitch(release, timeout=10)
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-6", "1.2.3")


async def dead_man(ctx: Context, result: Result) -> None:
    """The plane vanishes after the switch: the agent goes back by itself, reports later, and the record says so."""
    shop = await run_broken(ctx, result, "shop-7", "1.2.0")
    await wait_attempt(ctx, result)
    # Without webhooks nothing shows that the remedy helps, so that no commit comes before the plane is gone.
    await shop.traffic.stop()
    await wait_opened(ctx, result, "webhook_fail_rate")
    # The supervisor itself says when it has switched; spans follow within half a second.
    await shop.until(lambda state: state.get("release") == "1.2.3" and state.get("health") == "healthy", "switch")
    await asyncio.sleep(SPANS_SECONDS)
    await ctx.plane.hold("ingest")
    try:
        await shop.until(
            lambda state: state.get("release") == "1.2.0" and state.get("health") == "healthy", "go back to 1.2.0"
        )
        result.notes.append("went back to 1.2.0 while the plane was away")
    finally:
        shop.traffic.start()
        await ctx.plane.release("ingest")
    await ctx.timeline.wait_for("attempt_rolled_back", HEAL_SECONDS, incident=result.incident)
    await wait_ended(ctx, result)
    await check_runs(ctx, "shop-7", "1.1.0")
    answer = await ctx.client.ingest.GetIncident(
        ingest_pb2.GetIncidentRequest(name=f"incidents/{result.incident}"), timeout=10
    )
    if not answer.incident.tried:
        raise Mismatch("the incident does not remember the remedy that was taken back")


LANE = "1.2.3"
PLUGIN_FAULTS = (
    # The first to stage 1.2.3: what was staged before is on its way too briefly to be caught there.
    Scenario("kill_switch", "shop-6", "held, success, mitigated", kill_switch, lane=LANE),
    Scenario("heal_patch", "shop-1", "success, mitigated", heal_patch, lane=LANE),
    Scenario("staging_refuses", "shop-2", "staging_failed, success, mitigated", staging_refuses),
    Scenario("bad_patch_rolled_back", "shop-3", "rolled_back, success, mitigated", bad_patch_rolled_back),
    Scenario("plugin_down", "shop-4", "success, mitigated", plugin_down),
    Scenario("silent_plugin", "shop-5", "a person is asked", silent_plugin, 150.0),
)
# Takes ingest down, so it plays when nothing else does.
EXCLUSIVE = (Scenario("dead_man", "shop-7", "rolled_back by the agent, success, mitigated", dead_man, 180.0),)
