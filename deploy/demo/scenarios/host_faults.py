"""The scenarios of hosts: what the machine a plugin runs on, or whoever runs it, does to its agent.

Rule: the plugin is well all along, or gone on purpose; the plane says what is the matter and a person mends it.
"""

from __future__ import annotations

import asyncio
import time

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios.plugin_faults import LOOK_SECONDS, OPEN_SECONDS, SILENCE_SECONDS, check_runs, wait_opened
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario, now, wait_for_delivery
from libs.common.names import new_id
from prunella.v1 import ingest_pb2, notification_pb2
from prunella.v1.agent_pb2 import HEALTH_HEALTHY
from prunella.v1.events_pb2 import Event

SERVED_BEATS = 3
# So often it comes back until it is flapping.
RETURNS = 3


async def disk_full(ctx: Context, result: Result) -> None:
    """The disk of the agent is full: the plugin serves on, a person is told the folder, and room ends it."""
    shop = await ctx.fleet.add("shop-20")
    result.plugin, result.fault, result.traced = shop.plugin, now(), False
    pid, folder = shop.state()["pid"], str(shop.folder / "agent")
    with shop.full_disk():
        await wait_opened(ctx, result, "agent_degraded")
        await ctx.timeline.wait_for("incident_escalated", OPEN_SECONDS, incident=result.incident)
        request = ingest_pb2.GetIncidentRequest(name=f"incidents/{result.incident}")
        summary = (await ctx.client.ingest.GetIncident(request, timeout=CALL_SECONDS)).incident.evidence.summary
        if folder not in summary or "free space" not in summary:
            raise Mismatch(f"neither folder nor remedy is named: {summary}")
        await _serves(ctx, result.plugin)
    await _over(ctx, result)
    await check_runs(ctx, "shop-20", "1.2.3")
    if shop.state()["pid"] != pid:
        raise Mismatch("the plugin did not outlive the full disk")


async def _serves(ctx: Context, plugin: str) -> None:
    """Looks that the plane hears the plugin serve: beats go on, and it is healthy."""
    request = ingest_pb2.GetPluginRequest(name=f"plugins/{plugin}")
    first = (await ctx.client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
    deadline = time.monotonic() + OPEN_SECONDS
    while time.monotonic() < deadline:
        found = (await ctx.client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
        if found.beats >= first.beats + SERVED_BEATS:
            if found.health != HEALTH_HEALTHY:
                raise Mismatch("the plugin is not healthy under a full disk of its agent")
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise Mismatch("no beats come while the disk is full")


async def flapping(ctx: Context, result: Result) -> None:
    """The disk of an agent is full again and again: one incident, one message, and nothing is tried."""
    shop = await ctx.fleet.add("shop-22")
    result.plugin, result.fault, result.traced = shop.plugin, now(), False
    with shop.full_disk():
        await wait_opened(ctx, result, "agent_degraded")
        await ctx.timeline.wait_for("incident_escalated", OPEN_SECONDS, incident=result.incident)
    event = Event()
    for times in range(1, RETURNS + 1):
        await ctx.timeline.wait_for("incident_closed", OPEN_SECONDS, incident=result.incident, times=times)
        with shop.full_disk():
            event = await ctx.timeline.wait_for(
                "incident_reopened", OPEN_SECONDS, incident=result.incident, times=times
            )
    if not event.incident_reopened.flapping:
        raise Mismatch(f"it came back {event.incident_reopened.reopened} times and is not called flapping")
    await _told_once(ctx, result)
    request = ingest_pb2.CloseIncidentRequest(
        name=f"incidents/{result.incident}", reason="the disk is larger now", request_id=new_id()
    )
    await ctx.client.ingest.CloseIncident(request, timeout=CALL_SECONDS)
    await ctx.timeline.wait_for("incident_closed", OPEN_SECONDS, incident=result.incident, times=RETURNS + 1)
    await wait_for_delivery(ctx, lambda event: event.incident == result.incident)


async def _told_once(ctx: Context, result: Result) -> None:
    """Looks that people got one message about the incident, with which its returns are counted."""
    request = notification_pb2.ListNotificationsRequest(incident=result.incident)
    deadline = time.monotonic() + OPEN_SECONDS
    while time.monotonic() < deadline:
        found = (await ctx.client.ops.ListNotifications(request, timeout=CALL_SECONDS)).notifications
        if len(found) > 1:
            raise Mismatch(f"people were told of it {len(found)} times")
        if found and found[0].repeats >= RETURNS:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise Mismatch("its returns were not counted with the message about it")


async def away(ctx: Context, result: Result) -> None:
    """A plugin is stopped in order and not started again: away at once, missed in time, and over when it is back."""
    shop = await ctx.fleet.add("shop-21", back_within=0.0)
    result.plugin, result.fault, result.traced = shop.plugin, now(), False
    await shop.stop()
    request = ingest_pb2.GetPluginRequest(name=f"plugins/{result.plugin}")
    if not (await ctx.client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin.away:
        raise Mismatch("a plugin that said goodbye is not away")
    event = await ctx.timeline.wait_for("incident_escalated", SILENCE_SECONDS, plugin=result.plugin)
    result.incident = event.incident
    if event.incident_escalated.type != "plugin_away":
        raise Mismatch(f"a person was asked about {event.incident_escalated.type}, not about the absence")
    await ctx.fleet.add("shop-21", back_within=0.0)
    await _over(ctx, result)
    await check_runs(ctx, "shop-21", "1.2.3")


async def _over(ctx: Context, result: Result) -> None:
    await ctx.timeline.wait_for("incident_closed", OPEN_SECONDS, incident=result.incident)
    await wait_for_delivery(ctx, lambda event: event.incident == result.incident)


HOST_FAULTS = (
    Scenario("disk_full", "shop-20", "a person is asked, closed", disk_full),
    Scenario("flapping", "shop-22", "a person is asked, closed, closed, closed, closed", flapping, 180.0),
    Scenario("away", "shop-21", "a person is asked, closed", away, 180.0),
)
