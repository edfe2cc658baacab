"""Follows the timeline of ops: every fact of the plane, as it arrives.

Rule: nothing is missed and nothing comes twice; a stream that breaks is resumed after the last position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from libs.common.cancellation import cancel_and_wait
from libs.common.errors import Problem
from libs.common.facts import fact_name
from prunella.v1 import ops_pb2
from prunella.v1.events_pb2 import Event

AGAIN_SECONDS = 0.5
FIRST_SECONDS = 0.1
MAX_EVENTS = 50_000
SHOWN = 12
Subscriber = Callable[[str, Event], None]
Condition = Callable[[Event], bool]


def reports(event: Event) -> set[str]:
    """The ids of the error reports that a fact is about."""
    name = event.WhichOneof("fact")
    fields = getattr(event, name) if name else None
    entries = [fields, *getattr(fields, "leases", ()), *getattr(fields, "outcomes", ())]
    return {entry.report.rpartition("/")[2] for entry in entries if getattr(entry, "report", "")}


class TimelineFollower:
    """The facts since `start`, oldest first."""

    def __init__(self, client: OperatorClient) -> None:
        self.events: list[tuple[str, Event]] = []
        self._client = client
        self._position = 0
        self._arrived = asyncio.Condition()
        self._subscribers: list[Subscriber] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins after the newest fact."""
        newest = await self._client.ops.ListTimeline(ops_pb2.ListTimelineRequest(page_size=1), timeout=CALL_SECONDS)
        self._position = newest.entries[0].position if newest.entries else 0
        self._task = asyncio.create_task(self._follow(), name="timeline")

    async def stop(self) -> None:
        """Stops following."""
        if self._task:
            await cancel_and_wait([self._task])

    def subscribe(self, subscriber: Subscriber) -> None:
        """Calls back for each fact from now on, in order."""
        self._subscribers.append(subscriber)

    def facts(
        self, *names: str, plugin: str = "", incident: str = "", after: int = 0, where: Condition | None = None
    ) -> list[Event]:
        """The facts of these names (all when none is named) about a plugin or incident, from offset `after` on."""
        return [
            event
            for name, event in self.events[after:]
            if (not names or name in names) and plugin in ("", event.plugin) and incident in ("", event.incident)
            if where is None or where(event)
        ]

    def about_report(self, report: str) -> list[Event]:
        """The facts about one error report (its id), also those about many tasks at once."""
        return [event for _, event in self.events if report and report in reports(event)]

    def offset(self) -> int:
        """The number of facts so far, for `after`."""
        return len(self.events)

    async def wait_for(
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
        """Waits for the given number of these facts; returns the last. Raises TimeoutError with what arrived."""
        names = [facts] if isinstance(facts, str) else list(facts)
        found: list[Event] = []
        scanned = after
        try:
            async with asyncio.timeout(timeout), self._arrived:
                while True:
                    # What was scanned is not scanned again: a rollout makes thousands of facts.
                    found += self.facts(*names, plugin=plugin, incident=incident, after=scanned, where=where)
                    scanned = len(self.events)
                    if len(found) >= times:
                        return found[times - 1]
                    await self._arrived.wait()
        except TimeoutError:
            seen = [name for name, event in self.events[after:] if plugin in ("", event.plugin)]
            raise TimeoutError(
                f"no {' or '.join(names)} within {timeout:g} s; last were: {', '.join(seen[-SHOWN:]) or '-'}"
            ) from None

    async def wait_for_all(self, ids: Collection[str], timeout: float) -> None:
        """Waits until these facts arrived. Raises TimeoutError with how many did not."""
        missing, scanned = set(ids), 0
        try:
            async with asyncio.timeout(timeout), self._arrived:
                while True:
                    missing -= {event.id for _, event in self.events[scanned:]}
                    scanned = len(self.events)
                    if not missing:
                        return
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"{len(missing)} of {len(ids)} facts did not arrive within {timeout:g} s") from None

    async def _follow(self) -> None:
        while True:
            try:
                # Position 0 would mean "from now on", and miss what happens while the stream opens.
                while not self._position:
                    await self._load_recent()
                request = ops_pb2.WatchTimelineRequest(after_position=self._position)
                async for answer in self._client.ops.WatchTimeline(request):
                    await self._add(answer.entry)
            except Problem:
                pass  # ops is away; it comes back
            await asyncio.sleep(AGAIN_SECONDS)

    async def _load_recent(self) -> None:
        page = await self._client.ops.ListTimeline(ops_pb2.ListTimelineRequest(page_size=500), timeout=CALL_SECONDS)
        for entry in reversed(page.entries):
            await self._add(entry)
        if not page.entries:
            await asyncio.sleep(FIRST_SECONDS)

    async def _add(self, entry: ops_pb2.TimelineEntry) -> None:
        self._position = max(self._position, entry.position)
        name = fact_name(entry.event)
        async with self._arrived:
            self.events.append((name, entry.event))
            del self.events[:-MAX_EVENTS]
            self._arrived.notify_all()
        for subscriber in self._subscribers:
            subscriber(name, entry.event)
