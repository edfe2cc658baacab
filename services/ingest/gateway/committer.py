"""The group commit of beats: acknowledged means durable.

Rule: beats of all streams and batches wait in one bounded queue. A batch of what is there is evaluated in one pass
(`batch`) and stored in one transaction, sorted by plugin; afterwards every beat is answered: stored, refused with a
reason, or superseded. A plugin whose row has moved on (another replica, a new session, an outcome) is loaded again and
its beats are evaluated again; nothing is acknowledged before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from libs.common.cancellation import cancel_and_wait
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errors import Busy, Invalid, Unavailable
from libs.common.telemetry import Telemetry, counter, histogram, use_traceparent
from services.ingest.anomaly.peers import Peers
from services.ingest.gateway import findings
from services.ingest.gateway.batch import Batch, Entry, PluginBatch, evaluate
from services.ingest.gateway.findings import OPENED, REOPENED, Changes
from services.ingest.observation import LIMITS, Limits
from services.ingest.plugin_state import PluginState
from services.ingest.reopening import Rules as ReopeningRules
from services.ingest.store import configurations, plugin_state, plugins
from services.ingest.store.plugins import Attributes, Identity
from services.ingest.storm import Rules

log = logging.getLogger(__name__)

QUEUE = 20_000
BATCH = 1000
MOST_CACHED = 100_000
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


class Committer:
    """One per process. `quarantine` is called (once stored beats are answered) for plugins with two living agents."""

    name = "ingest committer"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        telemetry: Telemetry,
        *,
        healthy_windows: int,
        reopening: ReopeningRules,
        storm: Rules,
        limits: Limits = LIMITS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._telemetry = telemetry
        self._healthy_windows = healthy_windows
        self._reopening = reopening
        self._storm = storm
        self._limits = limits
        self._peers = Peers()
        self._queue: deque[Entry] = deque()
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._cache: OrderedDict[str, PluginState] = OrderedDict()
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

    def prime(self, states: dict[str, PluginState]) -> None:
        """Caches states that were read anyway; one that is out of date is found by its write."""
        for plugin, state in states.items():
            if state.active:
                self._cache.setdefault(plugin, state)

    def forget(self, plugin: str) -> None:
        """Loads a plugin's state again next time."""
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
            await self._split(batch, error)

    async def _split(self, batch: list[Entry], error: Exception) -> None:
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

    async def _commit(self, entries: list[Entry]) -> list[Entry]:
        """Stores a batch and answers it; returns the entries that have to be evaluated again."""
        batch = evaluate(entries, await self._load(entries), self._peers, self._limits)
        changes, stored = Changes(), set[str]()
        if batch.plugins:
            ordered = [batch.plugins[plugin] for plugin in sorted(batch.plugins)]
            attributes = [found for one in ordered if (found := one.new_attributes())]

            async def store(tx: Transaction) -> tuple[Changes, set[str]]:
                return await self._store(tx, ordered, attributes)

            changes, stored = await self._database.transaction(store)
        self._cache_stored(batch, stored - changes.changed_states)
        again = self._answer(batch, stored)
        self._trace(changes)
        for entry, rival in batch.cloned:
            self.forget(entry.identity.plugin)
            self.quarantine(entry.identity, (entry.beat.boot_id, rival))
        return again

    async def _load(self, entries: list[Entry]) -> dict[str, PluginState]:
        """The states of a batch. The cache may be told to forget while we read; what is stale the write finds out."""
        known: dict[str, PluginState] = {}
        missing = set()
        for entry in entries:
            cached = self._cache.get(entry.identity.plugin)
            if cached is None or cached.session_epoch < entry.epoch:
                missing.add(entry.identity.plugin)
            else:
                known[entry.identity.plugin] = cached
        if missing:
            async with self._database.reading() as tx:
                loaded = await plugin_state.load(tx, sorted(missing))
            # One that is barred may be let in again at another replica.
            self._cache.update({plugin: state for plugin, state in loaded.items() if state.active})
            known |= loaded
        return known

    async def _store(
        self, tx: Transaction, batches: Sequence[PluginBatch], attributes: Sequence[Attributes]
    ) -> tuple[Changes, set[str]]:
        stored = await plugin_state.save(tx, [batch.state for batch in batches])
        written = [batch for batch in batches if batch.state.plugin in stored]
        changes, adopted = Changes(), set[str]()
        if attributes:
            await plugins.save_attributes(tx, [found for found in attributes if found.plugin in stored])
            adopted = await configurations.adopt(tx, unexpected(written, attributes))
        if any(batch.observations for batch in written):
            changes = await findings.apply(
                tx,
                written,
                healthy_windows=self._healthy_windows,
                reopening_rules=self._reopening,
                rules=self._storm,
            )
            for event, trace in changes.facts:
                with use_traceparent(trace):
                    tx.record(event)
        changes.changed_states |= adopted
        return changes, stored

    def _cache_stored(self, batch: Batch, current: set[str]) -> None:
        for plugin, one in batch.plugins.items():
            if plugin in current:
                one.state.version += 1
                one.state.baseline_changed = False
                self._cache[plugin] = one.state
            else:
                self.forget(plugin)
        while len(self._cache) > MOST_CACHED:
            self._cache.popitem(last=False)

    def _answer(self, batch: Batch, stored: set[str]) -> list[Entry]:
        again: list[Entry] = []
        refused = 0
        for entry, problem in batch.answers:
            one = batch.plugins.get(entry.identity.plugin)
            if problem is None and one is not None and entry.identity.plugin not in stored:
                entry.tries += 1
                if entry.tries < TRIES:
                    again.append(entry)
                    continue
                problem = Unavailable("the plugin's row is too busy", reason="ROW_BUSY", retry_after=1.0)
            refused += problem is not None
            entry.commands_pending = one is not None and not entry.late and one.state.commands_pending
            entry.done(problem)
        _refused.inc(refused)
        _stored.inc(len(batch.answers) - refused - len(again))
        return again

    def _trace(self, changes: Changes) -> None:
        now = self._clock.now()
        for incident, sequence in changes.opened:
            (REOPENED if incident.reopened else OPENED).labels(incident.type).inc()
            attributes = {"plugin": incident.plugin, "incident": incident.id, "type": incident.type}
            self._telemetry.span_at(
                "beat",
                incident.first_bad_beat_time,
                now,
                parent="",
                traceparent=incident.traceparent,
                attributes={**attributes, "sequence": sequence},
            )


def unexpected(batches: Sequence[PluginBatch], attributes: Sequence[Attributes]) -> list[str]:
    """The plugins that report which configuration they have, and of which none is expected."""
    reported = {found.plugin for found in attributes if found.config_digest}
    states = [batch.state for batch in batches]
    return [state.plugin for state in states if state.plugin in reported and not state.expected_config_digest]
