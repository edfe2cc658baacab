"""Tool sets, which never change once they have an id, kept in memory: a claim reads only tasks it can do.

Rule: what is known is read again when a task may have a set that is not known yet, at the latest after a moment;
which sets a worker can do is worked out once for each different list of tools. That a worker claimed tasks of a set is
recorded now and then, so that tasks nobody can do are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from libs.common.clock import Clock
from libs.common.database import Transaction
from services.queue.store import tasks

FRESH_SECONDS = 1.0
CLAIMED_SECONDS = 60.0
MOST_LISTS = 256


@dataclass
class ToolsetCache:
    """Id and tools of every tool set that is known."""

    clock: Clock
    known: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _by_tools: dict[tuple[str, ...], int] = field(default_factory=dict)
    _executable: dict[frozenset[str], list[int]] = field(default_factory=dict)
    _read_at: float = float("-inf")
    _claimed: dict[int, float] = field(default_factory=dict)

    async def refresh(self, tx: Transaction, *, now: bool = False) -> None:
        """Reads what came since, unless that was done a moment ago."""
        if not now and self.clock.monotonic() < self._read_at + FRESH_SECONDS:
            return
        found = await tasks.toolsets(tx, max(self.known, default=0))
        if found:
            self.known.update(found)
            self._by_tools.update({tools: id_ for id_, tools in found.items()})
            self._executable.clear()
        self._read_at = self.clock.monotonic()

    async def ids(self, tx: Transaction, wanted: Iterable[Sequence[str]]) -> dict[tuple[str, ...], int]:
        """The ids of tool sets, each made when it is new."""
        sets = {tuple(sorted(tools)) for tools in wanted}
        if sets - self._by_tools.keys():
            for tools in sorted(sets - self._by_tools.keys()):
                await tasks.insert_toolset(tx, tools)
            # What this transaction made may still be rolled back, so it is not kept.
            found = {tools: id_ for id_, tools in (await tasks.toolsets(tx)).items()}
            return {tools: found[tools] for tools in sets}
        return {tools: self._by_tools[tools] for tools in sets}

    def executable(self, tools: Iterable[str], *, any_tools: bool) -> list[int]:
        """The sets that need no other tools than these."""
        if any_tools:
            return list(self.known)
        have = frozenset(tools)
        if have not in self._executable:
            if len(self._executable) >= MOST_LISTS:
                self._executable.clear()
            self._executable[have] = [id_ for id_, needed in self.known.items() if have.issuperset(needed)]
        return self._executable[have]

    async def record_claim(self, tx: Transaction, wanted: Sequence[int], every: float) -> None:
        """Records that a worker claims tasks of these sets, each at most once in `every` seconds, or a minute."""
        now = self.clock.monotonic()
        late = now - min(CLAIMED_SECONDS, every)
        due = [id_ for id_ in wanted if self._claimed.get(id_, float("-inf")) <= late]
        if due:
            await tasks.record_claim(tx, due)
            tx.after_commit(lambda: self._claimed.update(dict.fromkeys(due, now)))

    def tools_of(self, id_: int) -> tuple[str, ...]:
        """The tools of a set; empty when it is not known here yet."""
        return self.known.get(id_, ())
