"""What `prunella up --demo` shows: a healthy fleet, a plugin that heals, a bad patch that is taken back, an error
that tools put right.

Rule: what is shown is what happens, in the plane's own facts. Afterwards the demo stays, says what heals next, and
waits for people to break something.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from deploy.demo import config_edit
from deploy.demo.control_socket import ControlServer
from deploy.demo.fleet import Fleet
from deploy.demo.narration import Narrator
from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.queue_workers import QueueWorkers, traces_endpoint
from deploy.demo.scenarios.scenario import ENDS
from deploy.demo.timeline_follower import TimelineFollower
from deploy.local.plane import Plane
from libs.common.errors import Problem
from prunella.v1 import ingest_pb2

SIMULATED_AGENTS = 20
SHOPS = ("shop-1", "shop-3", "shop-7")
STORY_SECONDS = 120.0
RESOLVED = ("report_resolved", "report_escalated")
BEATS = 5
LOOK_SECONDS = 0.3
Say = Callable[[str], None]


class Showcase:
    """The demo on one plane; `run` lasts until it is cancelled."""

    def __init__(self, plane: Plane, say: Say) -> None:
        self.client = OperatorClient(plane.addresses, plane.key)
        self.fleet = Fleet(self.client, plane.state, say)
        self.timeline = TimelineFollower(self.client)
        self.workers = QueueWorkers(self.client, self.fleet.folder, say, otlp=traces_endpoint(plane.http))
        self._control = ControlServer(self.fleet, plane.state)
        self._say = say

    async def run(self) -> None:
        """Starts the fleet, shows the healings, and stays."""
        try:
            await self.timeline.start()
            self.timeline.subscribe(Narrator(self.fleet, self._say).narrate)
            await self.fleet.start()
            await asyncio.gather(
                self.fleet.add_simulated(SIMULATED_AGENTS), *(self.fleet.add(label) for label in SHOPS)
            )
            await self._control.start()
            await self.workers.start()
            self._say(f"fleet      {len(SHOPS)} plugins and {SIMULATED_AGENTS} simulated agents, healthy")
            await self.heal_by_patch("shop-7", "1.2.0", "a release that spoils most webhooks")
            await self.heal_by_patch("shop-3", "1.2.2", "the same fault, and the first remedy is a bad one")
            await self.heal_by_tools("shop-1")
            self._say("")
            self._say("break something: prunella demo break shop-7   (Ctrl-C to stop)")
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.shield(asyncio.create_task(self.close()))

    async def close(self) -> None:
        """Stops the fleet and closes what was opened."""
        await self._control.stop()
        await self.workers.stop()
        await self.fleet.stop()
        await self.timeline.stop()
        await self.client.close()

    async def heal_by_patch(self, label: str, release: str, what: str) -> None:
        """Breaks a plugin and waits for the end of its story."""
        self._say("")
        self._say(f"{label} gets release {release}: {what}")
        offset = self.timeline.offset()
        shop = await self.fleet.install(label, release)
        watching = asyncio.create_task(self._watch(label, shop.plugin, offset))
        try:
            end = await self.timeline.wait_for(ENDS, STORY_SECONDS, plugin=shop.plugin, after=offset)
            self._say(f"  {label:<8} why: prunella trace {end.incident}")
        except TimeoutError as error:
            self._say(f"  {label:<8} {error}; look with: prunella incidents")
        finally:
            watching.cancel()

    async def heal_by_tools(self, label: str) -> None:
        """Edits a plugin's configuration carelessly and waits until tools have put it right."""
        self._say("")
        before, after = config_edit.USUAL_SECONDS, config_edit.CARELESS_SECONDS
        self._say(f"{label} is edited by hand: deliveries may take {after:g} s where they took {before:g}")
        await self.workers.approve()
        offset = self.timeline.offset()
        shop = self.fleet.shops[label]
        try:
            await config_edit.shorten_timeout(self.fleet, shop)
            end = await self.timeline.wait_for(RESOLVED, STORY_SECONDS, plugin=shop.plugin, after=offset)
            fact = end.report_resolved if end.HasField("report_resolved") else end.report_escalated
            self._say(f"  {label:<8} why: prunella errors show {fact.report.rpartition('/')[2][-8:]}")
        except TimeoutError as error:
            self._say(f"  {label:<8} {error}; look with: prunella errors")

    async def _watch(self, label: str, plugin: str, offset: int) -> None:
        """Counts the beats of each generation under probation."""
        generations = 0
        with contextlib.suppress(TimeoutError):
            while True:
                generations += 1
                where = {"plugin": plugin, "after": offset, "times": generations}
                applied = await self.timeline.wait_for("attempt_applied", STORY_SECONDS, **where)  # type: ignore[arg-type]
                await self._count(label, plugin, applied.attempt_applied.generation, offset, generations)

    async def _count(self, label: str, plugin: str, generation: int, offset: int, generation_number: int) -> None:
        request = ingest_pb2.GetPluginRequest(name=f"plugins/{plugin}")
        first = shown = 0
        verdicts = ("attempt_committing", "attempt_rolling_back", "attempt_rolled_back")
        while shown < BEATS and len(self.timeline.facts(*verdicts, plugin=plugin, after=offset)) < generation_number:
            with contextlib.suppress(Problem):
                seen = (await self.client.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
                if seen.generation == generation:
                    first = first or seen.beats
                    if seen.beats - first + 1 > shown:
                        shown = min(seen.beats - first + 1, BEATS)
                        self._say(f"  {label:<8} watching {shown}/{BEATS}")
            await asyncio.sleep(LOOK_SECONDS)


async def run(plane: Plane, say: Say) -> int:
    """The demo as a body for `deploy.local.foreground.run`."""
    if plane.attached:
        say("a plane runs already; break something on its demo with: prunella demo break shop-7")
        await plane.ended()
        return 0
    await Showcase(plane, say).run()
    return 0
