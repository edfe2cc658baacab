"""What `prunella up --demo` tells: a fleet that is well, a plugin that heals, a bad patch that is taken back, an error
that tools put right.

Rule: the story is what happens, in the plane's own facts. When it is told the demo stays, says what heals next, and
waits for people to break something.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from deploy.demo import edit
from deploy.demo.chronicle import Chronicle
from deploy.demo.control import Control
from deploy.demo.fleet import Fleet
from deploy.demo.narration import Narrator
from deploy.demo.reach import CALL_SECONDS, Reach
from deploy.demo.scenarios.scene import ENDS
from deploy.demo.workers import Workers, spans_to
from deploy.local.plane import Plane
from libs.common.errors import Problem
from prunella.v1 import ingest_pb2

LIGHTS = 20
SHOPS = ("shop-1", "shop-3", "shop-7")
STORY_SECONDS = 120.0
RESOLVED = ("report_resolved", "report_escalated")
BEATS = 5
LOOK_SECONDS = 0.3
Say = Callable[[str], None]


class Story:
    """The demo on one plane; `tell` runs until it is cancelled."""

    def __init__(self, plane: Plane, say: Say) -> None:
        self.reach = Reach(plane.addresses, plane.key)
        self.fleet = Fleet(self.reach, plane.state, say)
        self.chronicle = Chronicle(self.reach)
        self.workers = Workers(self.reach, self.fleet.folder, say, otlp=spans_to(plane.http))
        self._control = Control(self.fleet, plane.state)
        self._say = say

    async def tell(self) -> None:
        """Starts the fleet, tells the stories, and stays."""
        try:
            await self.chronicle.start()
            self.chronicle.listen(Narrator(self.fleet, self._say).hear)
            await self.fleet.start()
            await asyncio.gather(self.fleet.add_lights(LIGHTS), *(self.fleet.add(label) for label in SHOPS))
            await self._control.start()
            await self.workers.start()
            self._say(f"fleet      {len(SHOPS)} plugins and {LIGHTS} light agents, healthy")
            await self.episode("shop-7", "1.2.0", "a release that spoils most webhooks")
            await self.episode("shop-3", "1.2.2", "the same fault, and the first remedy is a bad one")
            await self.error_report("shop-1")
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
        await self.chronicle.stop()
        await self.reach.close()

    async def episode(self, label: str, release: str, what: str) -> None:
        """Breaks a plugin and waits for the end of its story."""
        self._say("")
        self._say(f"{label} gets release {release}: {what}")
        mark = self.chronicle.mark()
        shop = await self.fleet.install(label, release)
        watching = asyncio.create_task(self._watch(label, shop.plugin, mark))
        try:
            end = await self.chronicle.hear(ENDS, STORY_SECONDS, plugin=shop.plugin, after=mark)
            self._say(f"  {label:<8} why: prunella trace {end.incident}")
        except TimeoutError as error:
            self._say(f"  {label:<8} {error}; look with: prunella incidents")
        finally:
            watching.cancel()

    async def error_report(self, label: str) -> None:
        """Edits a plugin's configuration carelessly and waits until tools have put it right."""
        self._say("")
        self._say(f"{label} is edited by hand: deliveries may take {edit.CARELESS:g} s where they took {edit.USUAL:g}")
        await self.workers.approve()
        mark = self.chronicle.mark()
        shop = self.fleet.shops[label]
        try:
            await edit.careless(self.fleet, shop)
            end = await self.chronicle.hear(RESOLVED, STORY_SECONDS, plugin=shop.plugin, after=mark)
            fact = end.report_resolved if end.HasField("report_resolved") else end.report_escalated
            self._say(f"  {label:<8} why: prunella errors show {fact.report.rpartition('/')[2][-8:]}")
        except TimeoutError as error:
            self._say(f"  {label:<8} {error}; look with: prunella errors")

    async def _watch(self, label: str, plugin: str, mark: int) -> None:
        """Counts the beats of each generation under probation."""
        trials = 0
        with contextlib.suppress(TimeoutError):
            while True:
                trials += 1
                where = {"plugin": plugin, "after": mark, "times": trials}
                applied = await self.chronicle.hear("attempt_applied", STORY_SECONDS, **where)  # type: ignore[arg-type]
                await self._count(label, plugin, applied.attempt_applied.generation, mark, trials)

    async def _count(self, label: str, plugin: str, generation: int, mark: int, trial: int) -> None:
        request = ingest_pb2.GetPluginRequest(name=f"plugins/{plugin}")
        first = shown = 0
        verdicts = ("attempt_committing", "attempt_rolling_back", "attempt_rolled_back")
        while shown < BEATS and len(self.chronicle.told(*verdicts, plugin=plugin, after=mark)) < trial:
            with contextlib.suppress(Problem):
                seen = (await self.reach.ingest.GetPlugin(request, timeout=CALL_SECONDS)).plugin
                if seen.generation == generation:
                    first = first or seen.beats
                    if seen.beats - first + 1 > shown:
                        shown = min(seen.beats - first + 1, BEATS)
                        self._say(f"  {label:<8} watching {shown}/{BEATS}")
            await asyncio.sleep(LOOK_SECONDS)


async def tell(plane: Plane, say: Say) -> int:
    """The demo as a body for `deploy.local.foreground.run`."""
    if plane.attached:
        say("a plane runs already; break something on its demo with: prunella demo break shop-7")
        await plane.ended()
        return 0
    await Story(plane, say).tell()
    return 0
