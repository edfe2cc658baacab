"""The group commit of beats: acknowledged means durable.

Rule: beats of all streams and batches wait in one bounded queue. One transaction takes what is there, sorted by plugin,
and afterwards everybody hears: stored, refused with a reason, or superseded. A plugin whose row has moved on (another
replica, a new session, an outcome) is loaded again and its beats are heard again; nothing is acknowledged before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libs.common.cancellation import cancel_and_wait
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errors import Busy, Denied, Invalid, NotFound, Problem, Stale, Unavailable
from libs.common.telemetry import Telemetry, counter, histogram, use_traceparent
from services.ingest import detection, sense
from services.ingest.gateway import changes
from services.ingest.gateway.changes import OPENED, Outcome, Said, Work
from services.ingest.store import configurations, plugins, pulses
from services.ingest.store.plugins import Identity, Traits
from services.ingest.storm import Rules
from services.ingest.telemetry import Beat, Heard, Hearing, Pulse, hear

log = logging.getLogger(__name__)

QUEUE = 20_000
BATCH = 1000
CACHE = 100_000
# Two transactions at once: while one waits for the disk, the next is computed. A few beats are not worth the second.
LANES = 2
WORTH = 64
# So few are not taken sooner than this after the last batch (seconds): a transaction costs more than a beat.
PACE = 0.012
TRIES = 8
PAUSE = 0.25

_beats = counter("beats_total", "Beats by what became of them", ("outcome",))
_stored, _refused = _beats.labels("stored"), _beats.labels("refused")
_seconds = histogram("beat_commit_seconds", "Time from taking a batch of beats to their acknowledgement")


@dataclass(slots=True)
class Entry:
    """A beat on its way; `done` hears None when it is durable, or why it never will be. `epoch` 0: no session.

    `waiting` says afterwards whether there may be commands for the plugin.
    """

    identity: Identity
    beat: Beat
    epoch: int
    received: float
    done: Callable[[Problem | None], None]
    tries: int = 0
    waiting: bool = False


class Committer:
    """One per process. `quarantine` is called (once stored beats are answered) for plugins with two living agents."""

    name = "ingest committer"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        telemetry: Telemetry,
        *,
        act_by: float,
        healthy_windows: int,
        storm: Rules,
    ) -> None:
        self._database = database
        self._clock = clock
        self._telemetry = telemetry
        self._act_by = act_by
        self._healthy_windows = healthy_windows
        self._storm = storm
        self._peers = sense.Peers()
        self._queue: deque[Entry] = deque()
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._cache: OrderedDict[str, Pulse] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._lanes: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self._taken = 0.0
        self.quarantine: Callable[[Identity, Sequence[str]], None] = lambda _identity, _boots: None

    async def start(self) -> None:
        """Begins to commit."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Commits what waits, for a moment; what is left was never acknowledged and comes again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while (self._queue or self._lanes) and self._task:  # noqa: ASYNC110 - at the very end only
                    await asyncio.sleep(0.01)
        await cancel_and_wait([task for task in (self._task, *self._lanes) if task])

    def add(self, entry: Entry) -> None:
        """Queues a beat. Raises Busy when the queue is full."""
        if len(self._queue) >= QUEUE:
            raise Busy("too many beats wait to be stored; come back later", reason="BEATS_WAITING", retry_after=2.0)
        self._queue.append(entry)
        self._news.set()

    async def room(self) -> None:
        """Waits until the queue has room; streams read nothing meanwhile."""
        while len(self._queue) >= QUEUE:
            self._space.clear()
            await self._space.wait()

    def prime(self, found: dict[str, Pulse]) -> None:
        """Keeps pulses that were read anyway; one that is out of date is found by its write."""
        for plugin, pulse in found.items():
            self._cache.setdefault(plugin, pulse)

    def forget(self, plugin: str) -> None:
        """Loads a plugin's pulse again next time."""
        self._cache.pop(plugin, None)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue and len(self._lanes) < LANES and (not self._lanes or len(self._queue) >= WORTH):
                await self._pace()
                batch = self._take()
                self._space.set()
                if not batch:
                    break
                lane = asyncio.create_task(self._lane(batch), name=self.name)
                self._lanes.add(lane)

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time
        early = self._taken + PACE - now()
        if len(self._queue) < WORTH and early > 0:
            await asyncio.sleep(early)
        self._taken = now()

    def _take(self) -> list[Entry]:
        """The next batch. Beats of a plugin that is being stored wait, and keep their order."""
        batch: list[Entry] = []
        held: list[Entry] = []
        while self._queue and len(batch) < BATCH and len(held) < BATCH:
            entry = self._queue.popleft()
            (held if entry.identity.plugin in self._busy else batch).append(entry)
        self._queue.extendleft(reversed(held))
        self._busy.update(entry.identity.plugin for entry in batch)
        return batch

    async def _lane(self, batch: list[Entry]) -> None:
        try:
            await self._persist(batch)
        finally:
            self._busy.difference_update(entry.identity.plugin for entry in batch)
            lane = asyncio.current_task()
            assert lane is not None
            self._lanes.discard(lane)
            self._news.set()

    async def _persist(self, batch: list[Entry]) -> None:
        try:
            with _seconds.time():
                again = await self._commit(batch)
            self._queue.extendleft(reversed(again))
        except (Unavailable, OSError, TimeoutError) as error:
            log.warning("%d beats wait to be stored: %s", len(batch), error)
            self._cache.clear()
            self._queue.extendleft(reversed(batch))
            await asyncio.sleep(PAUSE)
        except Exception as error:  # noqa: BLE001 - found and answered one by one
            await self._apart(batch, error)

    async def _apart(self, batch: list[Entry], error: Exception) -> None:
        """One beat that cannot be stored must not keep the others from it."""
        for entry in batch:
            self.forget(entry.identity.plugin)
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._persist(batch[:middle])
            await self._persist(batch[middle:])
            return
        log.error("a beat of plugin %s cannot be stored", batch[0].identity.plugin, exc_info=error)
        batch[0].done(Invalid("this beat cannot be stored; it was logged here", reason="BEAT_NOT_STORABLE"))

    async def _commit(self, batch: list[Entry]) -> list[Entry]:
        """Stores a batch and answers it; returns the entries that have to be heard again."""
        works, answers, cloned = self._hear(batch, await self._load(batch))
        outcome, stored = Outcome(), set[str]()
        if works:
            ordered = [works[plugin] for plugin in sorted(works)]
            traits = [found for work in ordered if (found := work.new_traits())]

            async def store(tx: Transaction) -> tuple[Outcome, set[str]]:
                return await self._store(tx, ordered, traits)

            outcome, stored = await self._database.transaction(store)
        for plugin, work in works.items():
            if plugin in stored and plugin not in outcome.moved:
                work.pulse.version += 1
                work.pulse.unsaved = False
                self._cache[plugin] = work.pulse
            else:
                self.forget(plugin)
        again = self._answer(answers, stored, works)
        self._trace(outcome)
        for entry in cloned:
            self.forget(entry.identity.plugin)
            self.quarantine(entry.identity, (entry.beat.boot,))
        while len(self._cache) > CACHE:
            self._cache.popitem(last=False)
        return again

    async def _load(self, batch: list[Entry]) -> dict[str, Pulse]:
        """The pulses of a batch. The cache may be told to forget while we read; what is stale the write finds out."""
        known: dict[str, Pulse] = {}
        missing = set()
        for entry in batch:
            kept = self._cache.get(entry.identity.plugin)
            if kept is None or kept.epoch < entry.epoch:
                missing.add(entry.identity.plugin)
            else:
                known[entry.identity.plugin] = kept
        if missing:
            async with self._database.reading() as tx:
                loaded = await pulses.load(tx, sorted(missing))
            self._cache.update(loaded)
            known |= loaded
        return known

    def _hear(
        self, batch: list[Entry], known: dict[str, Pulse]
    ) -> tuple[dict[str, Work], list[tuple[Entry, Problem | None]], list[Entry]]:
        works: dict[str, Work] = {}
        answers: list[tuple[Entry, Problem | None]] = []
        cloned: list[Entry] = []
        for entry in batch:
            plugin = entry.identity.plugin
            work = works.get(plugin)
            base = work.pulse if work else known.get(plugin)
            problem = _barred(base, entry)
            if problem or base is None:
                answers.append((entry, problem))
                continue
            heard = hear(base, entry.beat, max(entry.received, base.heard), polls=not entry.epoch)
            if heard.hearing is Hearing.APPLIED:
                self._listen(entry, base, heard)
                if work is None:
                    work = works[plugin] = Work(entry.identity, base)
                work.note(Said(entry.beat, heard, entry.received))
                work.tell_traits(entry.beat)
            elif heard.hearing is Hearing.CLONED:
                cloned.append(entry)
            answers.append((entry, _refusal(heard.hearing, heard.wrong)))
        return works, answers, cloned

    def _listen(self, entry: Entry, pulse: Pulse, heard: Heard) -> None:
        window = heard.window
        if window is None or not sense.due(pulse, entry.beat, window):
            return
        said = sense.listen(pulse, entry.identity.package, entry.beat, window, self._peers)
        if said.anomaly is not None:
            heard.anomalies = [*heard.anomalies, said.anomaly]
        elif said.well is not None and pulse.open_types & sense.BIT:
            heard.wellness[detection.TELEMETRY_ANOMALY] = said.well

    async def _store(
        self, tx: Transaction, works: Sequence[Work], traits: Sequence[Traits]
    ) -> tuple[Outcome, set[str]]:
        stored = await pulses.beat(tx, [work.pulse for work in works])
        written = [work for work in works if work.pulse.plugin in stored]
        outcome, adopted = Outcome(), set[str]()
        if traits:
            await plugins.note_traits(tx, [found for found in traits if found.plugin in stored])
            adopted = await configurations.adopt(tx, unexpected(written, traits))
        if any(work.said for work in written):
            outcome = await changes.apply(
                tx, written, act_by=self._act_by, enough=self._healthy_windows, rules=self._storm
            )
            for event, trace in outcome.told:
                with use_traceparent(trace):
                    tx.record(event)
        outcome.moved |= adopted
        return outcome, stored

    def _answer(
        self, answers: list[tuple[Entry, Problem | None]], stored: set[str], works: dict[str, Work]
    ) -> list[Entry]:
        again: list[Entry] = []
        refused = 0
        for entry, problem in answers:
            work = works.get(entry.identity.plugin)
            if problem is None and work is not None and entry.identity.plugin not in stored:
                entry.tries += 1
                if entry.tries < TRIES:
                    again.append(entry)
                    continue
                problem = Unavailable("the plugin's row is too busy", reason="ROW_BUSY", retry_after=1.0)
            refused += problem is not None
            entry.waiting = work is not None and work.pulse.waiting
            entry.done(problem)
        _refused.inc(refused)
        _stored.inc(len(answers) - refused - len(again))
        return again

    def _trace(self, outcome: Outcome) -> None:
        now = self._clock.now()
        for incident, said in outcome.opened:
            OPENED.labels(incident.type).inc()
            attributes = {"plugin": incident.plugin, "incident": incident.id, "type": incident.type}
            self._telemetry.span_at(
                "beat",
                incident.first_bad_beat_time,
                now,
                parent="",
                traceparent=incident.traceparent,
                attributes={**attributes, "sequence": said.beat.sequence},
            )


def unexpected(works: Sequence[Work], traits: Sequence[Traits]) -> list[str]:
    """The plugins that say which configuration they have, and of whom none is expected."""
    heard = {found.plugin for found in traits if found.config_digest}
    return [work.pulse.plugin for work in works if work.pulse.plugin in heard and not work.pulse.expected_config]


def _barred(pulse: Pulse | None, entry: Entry) -> Problem | None:
    if pulse is None:
        return NotFound("there is no such plugin", reason="PLUGIN_UNKNOWN", plugin=entry.identity.plugin)
    if not pulse.active:
        return Denied("the plugin is barred; it takes a person to change that", reason="PLUGIN_BARRED")
    if entry.epoch and pulse.epoch > entry.epoch:
        return Stale("a newer session of this plugin has begun", reason="SESSION_SUPERSEDED")
    return None


def _refusal(hearing: Hearing, field: str) -> Problem | None:
    if hearing is Hearing.SHRUNK:
        return Invalid(
            f"{field} must not shrink within a boot; send counts since boot, or a new boot_id after a restart",
            reason="COUNTER_SHRANK",
            field=field,
        )
    if hearing is Hearing.CLONED:
        return Denied(
            "two living agents use this identity; it is quarantined until a person decides", reason="PLUGIN_QUARANTINED"
        )
    return None
