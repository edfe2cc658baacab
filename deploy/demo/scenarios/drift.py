"""The scenario of a configuration: somebody edits it by hand, and the signed one comes back.

Rule: as for the others. The edit is real and hurts: an old address of the merchant's sink, which is being shut down and
refuses each fifth webhook. No threshold sees so few; that nobody brought this configuration is what tells of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from deploy.demo.reach import CALL_SECONDS
from deploy.demo.scenarios.scene import Mismatch, Report, Scenario, Scene, now
from deploy.demo.scenarios.stories import ended, opened
from deploy.demo.shop import Shop
from deploy.demo.tools import plugins
from deploy.demo.traffic import BURST
from prunella.v1 import ingest_pb2

LABEL = "shop-12"
OLD = f"{LABEL}-old"
KNOWN_SECONDS = 30.0
LOOK_SECONDS = 0.1


async def expected(scene: Scene, report: Report, digest: str) -> None:
    """Waits until the plane knows which configuration the plugin should have. Raises TimeoutError."""
    request = ingest_pb2.GetPluginRequest(name=f"plugins/{report.plugin}")
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        found = (await scene.reach.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
        if found.expected_config_digest == digest:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{LABEL} should have {found.expected_config_digest or 'no configuration'}, not {digest}"
            )
        await asyncio.sleep(LOOK_SECONDS)


def edit(scene: Scene) -> None:
    """The old address goes back into the file, by hand, and the relay is started again with it."""
    sink = scene.fleet.sink
    address = sink.merchant(OLD, sink.secrets[LABEL])
    sink.shut.add(OLD)
    found = plugins.find(scene.fleet.folder, LABEL)
    values = json.loads(found.config.read_text())
    found.config.write_text(json.dumps(values | {"sink": address}))
    os.kill(found.pid, signal.SIGHUP)


async def arrives(scene: Scene, shop: Shop) -> None:
    """Looks at the plugin itself: what it is told to forward comes to the right address, all of it. Raises Mismatch."""
    await shop.traffic.stop()
    taken = scene.fleet.sink.taken
    before, gone = taken.get(LABEL, 0), taken.get(OLD, 0)
    statuses = await shop.traffic.send_burst()
    # Webhooks that were under way when the traffic stopped may arrive among them.
    if statuses != [200] * BURST or taken[LABEL] < before + BURST or taken.get(OLD, 0) != gone:
        raise Mismatch(f"webhooks were answered {statuses}, {taken.get(OLD, 0) - gone} went to the old address")


async def config_fix(scene: Scene, report: Report) -> None:
    """A relay's configuration is edited by hand, which costs a fifth of its webhooks; the signed one comes back."""
    shop = await scene.fleet.add(LABEL, apart=True)
    report.plugin = shop.plugin
    digest = await scene.fleet.configure(shop, f"{LABEL}-1")
    await expected(scene, report, digest)
    report.fault = now()
    edit(scene)
    await opened(scene, report, "config_drift")
    await ended(scene, report)
    lost = scene.fleet.sink.taken.get(OLD, 0) // 5
    report.notes.append(f"{lost} webhooks were lost at the old address")
    await arrives(scene, shop)
    if scene.chronicle.told("attempt_applied", plugin=report.plugin)[1:]:
        raise Mismatch("something else was applied as well: the scenario proves nothing")


DRIFT = (Scenario("config_fix", LABEL, "success, mitigated", config_fix),)
