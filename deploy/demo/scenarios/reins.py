"""The scenarios of the reins: what holds automation back, and what people must agree to; on light agents.

Rule: as for the others. Each has a package of its own, so that a storm in one holds nothing in another.
"""

from __future__ import annotations

import asyncio

from deploy.demo.light import LightAgent
from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios import people
from deploy.demo.scenarios.scene import Mismatch, Report, Scenario, Scene, now
from deploy.demo.scenarios.stories import ended
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import Event

KIOSKS, VAULTS = 20, 6
OPEN_SECONDS = 40.0
STORM_SECONDS = 30.0
STAGED_SECONDS = 6.0
CALM_SECONDS = 90.0
HEAL_SECONDS = 90.0
REFUSED = 0.6
SWITCHED = ("apply_authorized", "attempt_applied")


def plugins(lights: list[LightAgent]) -> frozenset[str]:
    """Their ids."""
    return frozenset(light.identity.plugin for light in lights)


def mixed(lights: list[LightAgent], release: str) -> list[str]:
    """The labels of those that do not run this release."""
    return [light.identity.label for light in lights if light.identity.running.release != release]


async def storm(scene: Scene, report: Report) -> None:
    """The sink refuses most webhooks of every kiosk: automation waits, one page, and no plugin is patched."""
    await scene.fleet.publish("kiosk", "1.1.0", "1.2.3")
    lights = await scene.fleet.add_lights(KIOSKS, "kiosk", "1.1.0")
    kiosks = plugins(lights)

    def of_kiosk(event: Event) -> bool:
        return event.plugin in kiosks

    report.fault = now()
    scene.fleet.webhooks.refused["kiosk"] = REFUSED
    began = await scene.chronicle.hear(
        "storm_started", STORM_SECONDS, where=lambda event: event.storm_started.package == "kiosk"
    )
    report.storm = began.storm_started.storm.rpartition("/")[2]
    # Time enough for a remedy to be decided, staged and applied, if anything could be.
    await asyncio.sleep(STAGED_SECONDS)
    del scene.fleet.webhooks.refused["kiosk"]
    opened = len(scene.chronicle.told("incident_opened", where=of_kiosk))
    await scene.chronicle.hear("incident_closed", CALM_SECONDS, times=opened, where=of_kiosk)
    request = ingest_pb2.EndStormRequest(
        name=f"storms/{report.storm}", reason="the sink answers again", request_id=report.storm
    )
    await scene.reach.ingest.EndStorm(request, timeout=CALL_SECONDS)
    await scene.chronicle.hear("storm_ended", STORM_SECONDS, where=lambda e: e.storm_ended.package == "kiosk")
    # What waited for the end of the storm would go on now.
    await asyncio.sleep(STAGED_SECONDS)
    if scene.chronicle.told(*SWITCHED, where=of_kiosk) or mixed(lights, "1.1.0"):
        raise Mismatch("a plugin was patched for what the sink did")
    pages = scene.chronicle.told("incident_escalated", where=of_kiosk)
    storms = scene.chronicle.told("storm_started", where=lambda event: event.storm_started.package == "kiosk")
    if pages or len(storms) != 1:
        raise Mismatch(f"{len(storms)} storms and {len(pages)} single incidents paged, one storm should have")
    report.notes.append(f"{opened} of {KIOSKS} plugins were ill of it")


async def approval(scene: Scene, report: Report) -> None:
    """The remedy is a major release: its author may not agree to it, two others do, and it is applied."""
    async with people.person(scene, people.AUTHOR) as reach:
        await scene.fleet.publish("vault", "1.2.0", "1.2.3", "2.0.0", reach=reach)
    await scene.fleet.add_lights(VAULTS - 1, "vault", "1.2.3")
    (ill,) = await scene.fleet.add_lights(1, "vault", "1.2.0", label="vault-ill")
    report.plugin, report.fault = ill.identity.plugin, now()
    report.traced, report.modelled = False, True
    report.incident = (await scene.chronicle.hear("incident_opened", OPEN_SECONDS, plugin=report.plugin)).incident
    asked = await scene.chronicle.hear("approval_requested", HEAL_SECONDS, plugin=report.plugin)
    subject = asked.approval_requested.subject
    report.notes.append(await people.refused(scene, subject, people.AUTHOR))
    await people.agree(scene, subject, people.FIRST)
    if scene.chronicle.told(*SWITCHED, plugin=report.plugin):
        raise Mismatch("one person was enough")
    await people.agree(scene, subject, people.SECOND)
    await ended(scene, report)
    given = scene.chronicle.told("approval_given", plugin=report.plugin)
    report.notes += [f"{event.actor.rpartition('/')[2]} agreed" for event in given]
    if mixed([ill], "2.0.0"):
        raise Mismatch(f"the plugin runs {ill.identity.running.release}, not 2.0.0")


REINS = (
    Scenario("storm", "kiosk", "one storm, nothing patched, over", storm, 180.0),
    Scenario("approval", "vault-ill-1", "success, mitigated", approval),
)
