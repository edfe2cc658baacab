"""Everything the plane has told, as it is told: the timeline followed from ops.

Rule: nothing is missed and nothing comes twice; a stream that breaks is resumed after the last position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from deploy.demo.reach import CALL_SECONDS, Reach
from libs.common.cancellation import cancel_and_wait
from libs.common.errors import Problem
from libs.common.facts import fact_name
from prunella.v1 import ops_pb2
from prunella.v1.events_pb2 import Event

AGAIN_SECONDS = 0.5
FIRST_SECONDS = 0.1
MAX_KEPT = 50_000
SHOWN = 12
Listener = Callable[[str, Event], None]
Condition = Callable[[Event], bool]


def reports(event: Event) -> set[str]:
    """The ids of the error reports that a fact tells of."""
    name = event.WhichOneof("fact")
    told = getattr(event, name) if name else None
    entries = [told, *getattr(told, "leases", ()), *getattr(told, "outcomes", ())]
    return {entry.report.rpartition("/")[2] for entry in entries if getattr(entry, "report", "")}


class Chronicle:
    """The facts told since `start`, oldest first."""

    def __init__(self, reach: Reach) -> None:
        self.events: list[tuple[str, Event]] = []
        self._reach = reach
        self._position = 0
        self._news = asyncio.Condition()
        self._listeners: list[Listener] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins after what was told last."""
        newest = await self._reach.ops.ListTimeline(ops_pb2.ListTimelineRequest(page_size=1), timeout=CALL_SECONDS)
        self._position = newest.entries[0].position if newest.entries else 0
        self._task = asyncio.create_task(self._follow(), name="chronicle")

    async def stop(self) -> None:
        """Stops listening."""
        if self._task:
            await cancel_and_wait([self._task])

    def listen(self, listener: Listener) -> None:
        """Calls back for each fact from now on, in order."""
        self._listeners.append(listener)

    def told(
        self, *facts: str, plugin: str = "", incident: str = "", after: int = 0, where: Condition | None = None
    ) -> list[Event]:
        """The facts of these names (all when none is named) about a plugin or incident, from mark `after` on."""
        return [
            event
            for name, event in self.events[after:]
            if (not facts or name in facts) and plugin in ("", event.plugin) and incident in ("", event.incident)
            if where is None or where(event)
        ]

    def about(self, report: str) -> list[Event]:
        """The facts about one error report (its id), those among them that tell of many tasks at once."""
        return [event for _, event in self.events if report and report in reports(event)]

    def mark(self) -> int:
        """A place in the story, for `after`."""
        return len(self.events)

    async def hear(
        self,
        facts: Sequence[str] | str,
        timeout: float,
        *,
        plugin: str = "",
        incident: str = "",
        times: int = 1,
        after: int = 0,
        where: Condition | None = None,
    ) -> Event:
        """Waits until one of these facts was told so often and returns that. Raises TimeoutError, saying what."""
        names = [facts] if isinstance(facts, str) else list(facts)
        found: list[Event] = []
        looked = after
        try:
            async with asyncio.timeout(timeout), self._news:
                while True:
                    # What was looked at once is not looked at again: a rollout tells thousands of facts.
                    found += self.told(*names, plugin=plugin, incident=incident, after=looked, where=where)
                    looked = len(self.events)
                    if len(found) >= times:
                        return found[times - 1]
                    await self._news.wait()
        except TimeoutError:
            seen = [name for name, event in self.events[after:] if plugin in ("", event.plugin)]
            raise TimeoutError(
                f"no {' or '.join(names)} within {timeout:g} s; told last: {', '.join(seen[-SHOWN:]) or '-'}"
            ) from None

    async def hear_all(self, ids: Collection[str], timeout: float) -> None:
        """Waits until these facts were told. Raises TimeoutError, saying how many were not."""
        missing, looked = set(ids), 0
        try:
            async with asyncio.timeout(timeout), self._news:
                while True:
                    missing -= {event.id for _, event in self.events[looked:]}
                    looked = len(self.events)
                    if not missing:
                        return
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"{len(missing)} of {len(ids)} facts were not told within {timeout:g} s") from None

    async def _follow(self) -> None:
        while True:
            try:
                # Position 0 would mean "from now on", and miss what is told while the stream opens.
                while not self._position:
                    await self._first()
                request = ops_pb2.WatchTimelineRequest(after_position=self._position)
                async for answer in self._reach.ops.WatchTimeline(request):
                    await self._add(answer.entry)
            except Problem:
                pass  # ops is away; it comes back
            await asyncio.sleep(AGAIN_SECONDS)

    async def _first(self) -> None:
        page = await self._reach.ops.ListTimeline(ops_pb2.ListTimelineRequest(page_size=500), timeout=CALL_SECONDS)
        for entry in reversed(page.entries):
            await self._add(entry)
        if not page.entries:
            await asyncio.sleep(FIRST_SECONDS)

    async def _add(self, entry: ops_pb2.TimelineEntry) -> None:
        self._position = max(self._position, entry.position)
        name = fact_name(entry.event)
        async with self._news:
            self.events.append((name, entry.event))
            del self.events[:-MAX_KEPT]
            self._news.notify_all()
        for listener in self._listeners:
            listener(name, entry.event)
