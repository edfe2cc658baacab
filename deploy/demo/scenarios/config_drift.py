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

from deploy.demo.operator_client import CALL_SECONDS
from deploy.demo.scenarios.plugin_faults import wait_ended, wait_opened
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario, now
from deploy.demo.shop import Shop
from deploy.demo.tools import plugins
from deploy.demo.traffic import BURST
from prunella.v1 import ingest_pb2

LABEL = "shop-12"
OLD = f"{LABEL}-old"
KNOWN_SECONDS = 30.0
LOOK_SECONDS = 0.1


async def wait_expected(ctx: Context, result: Result, digest: str) -> None:
    """Waits until the plane knows which configuration the plugin should have. Raises TimeoutError."""
    request = ingest_pb2.GetPluginRequest(name=f"plugins/{result.plugin}")
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        found = (await ctx.client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
        if found.expected_config_digest == digest:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{LABEL} should have {found.expected_config_digest or 'no configuration'}, not {digest}"
            )
        await asyncio.sleep(LOOK_SECONDS)


def restore_old_address(ctx: Context) -> None:
    """The old address goes back into the file, by hand, and the relay is started again with it."""
    sink = ctx.fleet.sink
    address = sink.merchant(OLD, sink.secrets[LABEL])
    sink.shutting_down.add(OLD)
    found = plugins.find(ctx.fleet.folder, LABEL)
    values = json.loads(found.config.read_text())
    found.config.write_text(json.dumps(values | {"sink": address}))
    os.kill(found.pid, signal.SIGHUP)


async def check_delivery(ctx: Context, shop: Shop) -> None:
    """Looks at the plugin itself: what it is told to forward comes to the right address, all of it. Raises Mismatch."""
    await shop.traffic.stop()
    taken = ctx.fleet.sink.taken
    before, misdirected = taken.get(LABEL, 0), taken.get(OLD, 0)
    statuses = await shop.traffic.send_burst()
    # WebhookModel that were under way when the traffic stopped may arrive among them.
    if statuses != [200] * BURST or taken[LABEL] < before + BURST or taken.get(OLD, 0) != misdirected:
        raise Mismatch(f"webhooks were answered {statuses}, {taken.get(OLD, 0) - misdirected} went to the old address")


async def config_fix(ctx: Context, result: Result) -> None:
    """A relay's configuration is edited by hand, which costs a fifth of its webhooks; the signed one comes back."""
    shop = await ctx.fleet.add(LABEL, separate_secret=True)
    result.plugin = shop.plugin
    digest = await ctx.fleet.configure(shop, f"{LABEL}-1")
    await wait_expected(ctx, result, digest)
    result.fault = now()
    restore_old_address(ctx)
    await wait_opened(ctx, result, "config_drift")
    await wait_ended(ctx, result)
    lost = ctx.fleet.sink.taken.get(OLD, 0) // 5
    result.notes.append(f"{lost} webhooks were lost at the old address")
    await check_delivery(ctx, shop)
    if ctx.timeline.facts("attempt_applied", plugin=result.plugin)[1:]:
        raise Mismatch("something else was applied as well: the scenario proves nothing")


CONFIG_DRIFT = (Scenario("config_fix", LABEL, "success, mitigated", config_fix),)
