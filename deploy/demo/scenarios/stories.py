"""The seven scenarios.

Rule: each breaks something for real, in the world and never in the plane's own data, waits for the end, and looks at
the plugin itself afterwards.
"""

from __future__ import annotations

import asyncio

from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios.scene import ENDS, Mismatch, Report, Scenario, Scene, heard, now
from deploy.demo.shop import Shop
from prunella.v1 import ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event

OPEN_SECONDS = 40.0
HEAL_SECONDS = 90.0
SILENCE_SECONDS = 120.0
HELD_SECONDS = 4.0
SPANS_SECONDS = 0.6
LOOK_SECONDS = 0.05


async def opened(scene: Scene, report: Report, kind: str) -> None:
    """Waits for the incident of the scenario's plugin."""
    event = await scene.chronicle.hear("incident_opened", OPEN_SECONDS, plugin=report.plugin)
    report.incident = event.incident
    if event.incident_opened.type != kind:
        raise Mismatch(f"the incident is {event.incident_opened.type}, not {kind}")


async def ended(scene: Scene, report: Report, timeout: float = HEAL_SECONDS) -> Event:
    """Waits for the end of the incident, and for all that led to it: facts come in any order."""
    end = await scene.chronicle.hear(ENDS, timeout, incident=report.incident)
    await heard(scene, lambda event: event.incident == report.incident)
    return end


async def runs(scene: Scene, label: str, release: str) -> None:
    """Looks at the plugin itself: what its supervisor runs, and that it is well."""
    state = await scene.fleet.shops[label].ready()
    if state["release"] != release:
        raise Mismatch(f"{label} runs {state['release']}, not {release}")


async def begun(scene: Scene, report: Report) -> None:
    """Waits until the plugin has an attempt: asked of patcher, since the timeline tells of it too late to interfere."""
    request = patcher_pb2.ListAttemptsRequest(plugin=report.plugin, page_size=1)
    for _ in range(int(HEAL_SECONDS / LOOK_SECONDS)):
        if (await scene.reach.patcher.ListAttempts(request, timeout=CALL_SECONDS)).attempts:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise Mismatch("nothing was tried")


async def ill(scene: Scene, report: Report, label: str, version: str) -> Shop:
    """A plugin that runs a broken release, and customers who send it webhooks."""
    shop = await scene.fleet.add(label, version, traffic=False)
    report.plugin, report.fault = shop.plugin, now()
    shop.traffic.start()
    return shop


async def broken(scene: Scene, report: Report, label: str, version: str) -> None:
    """A plugin that runs a broken release, and the incident that tells of it."""
    await ill(scene, report, label, version)
    await opened(scene, report, "webhook_fail_rate")


async def heal_patch(scene: Scene, report: Report) -> None:
    """Release 1.2.0 fails on 60 % of its webhooks; 1.2.3 is staged, applied, watched and kept."""
    await broken(scene, report, "shop-1", "1.2.0")
    await ended(scene, report)
    await runs(scene, "shop-1", "1.2.3")


async def staging_refuses(scene: Scene, report: Report) -> None:
    """The first remedy, 1.2.4, fails its smoke tests in the sandbox and never reaches the plugin."""
    await broken(scene, report, "shop-2", "1.2.1")
    await ended(scene, report)
    await runs(scene, "shop-2", "1.2.3")
    applied = scene.chronicle.told("attempt_applied", incident=report.incident)
    if len(applied) != 1:
        raise Mismatch(f"{len(applied)} releases were applied, only the second should have been")


async def bad_patch_rolled_back(scene: Scene, report: Report) -> None:
    """The first remedy, 1.3.0, passes staging, fails under load in probation, and is taken back."""
    await broken(scene, report, "shop-3", "1.2.2")
    await ended(scene, report)
    await runs(scene, "shop-3", "1.2.3")


async def plugin_down(scene: Scene, report: Report) -> None:
    """The plugin is killed under its living supervisor and started again by the plane."""
    shop = await scene.fleet.add("shop-4")
    report.plugin, report.fault = shop.plugin, now()
    shop.kill_plugin()
    await opened(scene, report, "plugin_down")
    await ended(scene, report)
    await runs(scene, "shop-4", "1.2.3")


async def silent_plugin(scene: Scene, report: Report) -> None:
    """The supervisor itself is killed: nothing can reach the plugin, so a person is asked, within two minutes."""
    shop = await scene.fleet.add("shop-5")
    report.plugin, report.fault, report.traced = shop.plugin, now(), False
    await shop.kill_supervisor()
    event = await scene.chronicle.hear("incident_escalated", SILENCE_SECONDS, plugin=report.plugin)
    report.incident = event.incident
    await heard(scene, lambda event: event.incident == report.incident)
    if event.incident_escalated.type != "heartbeat_missed":
        raise Mismatch(f"a person was asked about {event.incident_escalated.type}, not about silence")


async def kill_switch(scene: Scene, report: Report) -> None:
    """Engaged while the update is on its way: nothing is applied. Released: it goes on."""
    await ill(scene, report, "shop-6", "1.2.0")
    await begun(scene, report)
    scope = f"plugins/{report.plugin}"
    engage = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason="the demo pulls the switch", request_id=scope)
    await scene.reach.patcher.EngageKillSwitch(engage, timeout=10)
    await opened(scene, report, "webhook_fail_rate")
    await scene.chronicle.hear("attempt_held", HEAL_SECONDS, incident=report.incident)
    await asyncio.sleep(HELD_SECONDS)
    if scene.chronicle.told("apply_authorized", "attempt_applied", incident=report.incident):
        raise Mismatch("something was applied under the kill switch")
    await runs(scene, "shop-6", "1.2.0")
    release = patcher_pb2.ReleaseKillSwitchRequest(scope=scope, reason="the demo goes on", request_id=f"{scope}-off")
    await scene.reach.patcher.ReleaseKillSwitch(release, timeout=10)
    await ended(scene, report)
    await runs(scene, "shop-6", "1.2.3")


async def dead_man(scene: Scene, report: Report) -> None:
    """The plane vanishes after the switch: the agent goes back by itself, reports later, and the record says so."""
    shop = await ill(scene, report, "shop-7", "1.2.0")
    await begun(scene, report)
    # Without webhooks nothing shows that the remedy helps, so that no commit comes before the plane is gone.
    await shop.traffic.stop()
    await opened(scene, report, "webhook_fail_rate")
    # The supervisor itself says when it has switched; spans follow within half a second.
    await shop.until(lambda state: state.get("release") == "1.2.3" and state.get("health") == "healthy", "switch")
    await asyncio.sleep(SPANS_SECONDS)
    await scene.plane.hold("ingest")
    try:
        await shop.until(
            lambda state: state.get("release") == "1.2.0" and state.get("health") == "healthy", "go back to 1.2.0"
        )
        report.notes.append("went back to 1.2.0 while the plane was away")
    finally:
        shop.traffic.start()
        await scene.plane.release("ingest")
    await scene.chronicle.hear("attempt_rolled_back", HEAL_SECONDS, incident=report.incident)
    await ended(scene, report)
    await runs(scene, "shop-7", "1.1.0")
    answer = await scene.reach.ingest.GetIncident(
        ingest_pb2.GetIncidentRequest(name=f"incidents/{report.incident}"), timeout=10
    )
    if not answer.incident.tried:
        raise Mismatch("the incident does not remember the remedy that was taken back")


LANE = "1.2.3"
SCENARIOS = (
    # The first to stage 1.2.3: what was staged before is on its way too briefly to be caught there.
    Scenario("kill_switch", "shop-6", "held, success, mitigated", kill_switch, lane=LANE),
    Scenario("heal_patch", "shop-1", "success, mitigated", heal_patch, lane=LANE),
    Scenario("staging_refuses", "shop-2", "staging_failed, success, mitigated", staging_refuses),
    Scenario("bad_patch_rolled_back", "shop-3", "rolled_back, success, mitigated", bad_patch_rolled_back),
    Scenario("plugin_down", "shop-4", "success, mitigated", plugin_down),
    Scenario("silent_plugin", "shop-5", "a person is asked", silent_plugin, 150.0),
)
# Takes ingest down, so it plays when nothing else does.
ALONE = (Scenario("dead_man", "shop-7", "rolled_back by the agent, success, mitigated", dead_man, 180.0),)
