"""A careless edit of a relay's configuration file, made by hand as an operator would make it.

Rule: deliveries may take half a second where they took five, so that each answer of a slow merchant's sink comes too
late. One webhook of five fails, which is too few for an incident; the errors are what tells of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

from deploy.demo import traffic
from deploy.demo.fleet import Fleet
from deploy.demo.shop import Shop
from deploy.demo.tools import plugins, relay_control

CARELESS_SECONDS, USUAL_SECONDS = 0.5, 5.0
# So few webhooks that a story's errors stay below what would be a spike of errors.
BURST, PAUSE_SECONDS = 5, 0.9
EDIT_SECONDS = 15.0
LOOK_SECONDS = 0.1


async def shorten_timeout(fleet: Fleet, shop: Shop) -> None:
    """Edits the file, starts the relay again, and lets a slow merchant's shop send. Raises TimeoutError."""
    await shop.traffic.stop()
    fleet.sink.slow.add(shop.label)
    found = plugins.find(fleet.folder, shop.label)
    values = json.loads(found.config.read_text())
    found.config.write_text(json.dumps(values | {"timeout_seconds": CARELESS_SECONDS}))
    os.kill(found.pid, signal.SIGHUP)
    await wait_until_used(shop, CARELESS_SECONDS)
    shop.traffic = traffic.Traffic(lambda: int(shop.state().get("port", 0)), burst=BURST, pause=PAUSE_SECONDS)
    shop.traffic.start()


async def wait_until_used(shop: Shop, wanted: float) -> None:
    """Waits until the relay itself says that it uses a value. Raises TimeoutError."""
    deadline = asyncio.get_running_loop().time() + EDIT_SECONDS
    found: object = None
    while asyncio.get_running_loop().time() < deadline:
        status = await asyncio.to_thread(relay_control.relay_status, int(shop.state().get("port", 0)))
        found = status.get("settings", {}).get("timeout_seconds")
        if found == wanted:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise TimeoutError(f"{shop.label} waits {found} s for its sink, not {wanted:g}")
