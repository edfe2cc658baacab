"""The scenarios of governance: what holds automation back, and what people must agree to; on simulated agents.

Rule: as for the others. Each has a package of its own, so that a storm in one holds nothing in another.
"""

from __future__ import annotations

import asyncio

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios import operators
from deploy.demo.scenarios.plugin_faults import wait_ended
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario, now
from deploy.demo.simulated_agent import SimulatedAgent
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import Event

KIOSKS, VAULTS = 20, 6
OPEN_SECONDS = 40.0
STORM_SECONDS = 30.0
STAGED_SECONDS = 6.0
RECOVERY_SECONDS = 90.0
HEAL_SECONDS = 90.0
REFUSED = 0.6
APPLIED = ("apply_authorized", "attempt_applied")


def plugin_ids(agents: list[SimulatedAgent]) -> frozenset[str]:
    """Their ids."""
    return frozenset(agent.identity.plugin for agent in agents)


def not_running(agents: list[SimulatedAgent], release: str) -> list[str]:
    """The labels of those that do not run this release."""
    return [agent.identity.label for agent in agents if agent.identity.running.release != release]


async def storm(ctx: Context, result: Result) -> None:
    """The sink refuses most webhooks of every kiosk: automation waits, one page, and no plugin is patched."""
    await ctx.fleet.publish("kiosk", "1.1.0", "1.2.3")
    agents = await ctx.fleet.add_simulated(KIOSKS, "kiosk", "1.1.0")
    kiosks = plugin_ids(agents)

    def of_kiosk(event: Event) -> bool:
        return event.plugin in kiosks

    result.fault = now()
    ctx.fleet.webhooks.refused["kiosk"] = REFUSED
    started = await ctx.timeline.wait_for(
        "storm_started", STORM_SECONDS, where=lambda event: event.storm_started.package == "kiosk"
    )
    result.storm = started.storm_started.storm.rpartition("/")[2]
    # Time enough for a remedy to be decided, staged and applied, if anything could be.
    await asyncio.sleep(STAGED_SECONDS)
    del ctx.fleet.webhooks.refused["kiosk"]
    opened = len(ctx.timeline.facts("incident_opened", "incident_reopened", where=of_kiosk))
    await ctx.timeline.wait_for("incident_closed", RECOVERY_SECONDS, times=opened, where=of_kiosk)
    request = ingest_pb2.EndStormRequest(
        name=f"storms/{result.storm}", reason="the sink answers again", request_id=result.storm
    )
    await ctx.client.ingest.EndStorm(request, timeout=CALL_SECONDS)
    await ctx.timeline.wait_for("storm_ended", STORM_SECONDS, where=lambda e: e.storm_ended.package == "kiosk")
    # What waited for the end of the storm would go on now.
    await asyncio.sleep(STAGED_SECONDS)
    if ctx.timeline.facts(*APPLIED, where=of_kiosk) or not_running(agents, "1.1.0"):
        raise Mismatch("a plugin was patched for what the sink did")
    pages = ctx.timeline.facts("incident_escalated", where=of_kiosk)
    storms = ctx.timeline.facts("storm_started", where=lambda event: event.storm_started.package == "kiosk")
    if pages or len(storms) != 1:
        raise Mismatch(f"{len(storms)} storms and {len(pages)} single incidents paged, one storm should have")
    result.notes.append(f"{opened} of {KIOSKS} plugins were ill of it")


async def approval(ctx: Context, result: Result) -> None:
    """The remedy is a major release: its author may not agree to it, two others do, and it is applied."""
    async with operators.as_operator(ctx, operators.AUTHOR) as client:
        await ctx.fleet.publish("vault", "1.2.0", "1.2.3", "2.0.0", client=client)
    await ctx.fleet.add_simulated(VAULTS - 1, "vault", "1.2.3")
    (sick,) = await ctx.fleet.add_simulated(1, "vault", "1.2.0", label="vault-ill")
    result.plugin, result.fault = sick.identity.plugin, now()
    result.traced, result.modelled = False, True
    result.incident = (await ctx.timeline.wait_for("incident_opened", OPEN_SECONDS, plugin=result.plugin)).incident
    requested = await ctx.timeline.wait_for("approval_requested", HEAL_SECONDS, plugin=result.plugin)
    subject = requested.approval_requested.subject
    result.notes.append(await operators.check_refused(ctx, subject, operators.AUTHOR))
    await operators.approve(ctx, subject, operators.FIRST)
    if ctx.timeline.facts(*APPLIED, plugin=result.plugin):
        raise Mismatch("one person was enough")
    await operators.approve(ctx, subject, operators.SECOND)
    await wait_ended(ctx, result)
    approvals = ctx.timeline.facts("approval_given", plugin=result.plugin)
    result.notes += [f"{event.actor.rpartition('/')[2]} agreed" for event in approvals]
    if not_running([sick], "2.0.0"):
        raise Mismatch(f"the plugin runs {sick.identity.running.release}, not 2.0.0")


GOVERNANCE = (
    Scenario("storm", "kiosk", "one storm, nothing patched, over", storm, 180.0),
    Scenario("approval", "vault-ill-1", "success, mitigated", approval),
)
