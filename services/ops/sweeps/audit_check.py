"""Time passed: the audit log is compared with the facts it was made from, a part each round, for ever.

Rule: every entry is hashed again, compared with its fact, and folded into the tree, whose root must be what each kept
checkpoint signed; every fact that is old enough must have its entry. A finding is saved once, with the
fact `audit_violated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from libs.common.database import Transaction
from libs.common.errors import Invalid
from libs.common.facts import fact
from libs.common.telemetry import counter
from prunella.v1.events_pb2 import AuditViolated
from services.ops.audit import merkle, note
from services.ops.audit.comparison import mismatch
from services.ops.audit.merkle import Peaks
from services.ops.context import ServiceContext
from services.ops.store import audit as store

ENTRIES = 2000
FACTS = 5000
MOST = 20  # findings recorded by one round
# A fact this old is logged, unless it was put between older ones behind the plane's back.
LOGGED = timedelta(minutes=5)
Finding = tuple[int, str, str]
START = (datetime(1970, 1, 1, tzinfo=UTC), "00000000-0000-0000-0000-000000000000")

violations = counter("ops_audit_violations_total", "Findings of the comparison of the audit log with the facts")


@dataclass
class Comparison:
    """A comparison on its way from an entry to the end."""

    peaks: Peaks
    proven: int
    ended: bool = False
    findings: list[Finding] = field(default_factory=list)
    _lost: bool = False

    @classmethod
    async def begin(cls, reading: Transaction, first: int) -> Comparison:
        """From this entry on; what is before it is believed when the tree still has the root that was signed last."""
        signed = await store.checkpoint_before(reading, first + 1)
        size = signed.size if signed else 0
        try:
            root = await store.root(reading, size)
            made = cls(await store.peaks(reading, first), size)
        except (KeyError, ValueError):
            return cls(Peaks(), 0, findings=[(0, "", "the tree of the audit log has holes")])
        if signed and root != signed.root:
            made._find(0, "", f"the first {size} entries are not those that were signed")
            made._lost = True
        return made

    async def advance(self, reading: Transaction, count: int) -> None:
        """Compares the next entries."""
        first = self.peaks.size
        log = await store.log(reading)
        count = max(0, min(count, log.size - first))
        rows = await store.beside_facts(reading, first, count)
        signed = {one.size: one for one in await store.checkpoints_between(reading, first, first + count)}
        keys = [note.read_key(key) for key in await store.keys(reading)]
        for leaf, recorded in rows:
            if leaf.index != self.peaks.size:
                break
            detail = mismatch(leaf.index, leaf.event, leaf.hash, leaf.entry, recorded)
            if detail:
                self._find(leaf.index, leaf.event, detail)
            self.peaks, _ = self.peaks.append([merkle.leaf_hash(leaf.entry)])
            if self.peaks.size in signed:
                self._prove(signed[self.peaks.size], keys)
        if self.peaks.size < first + count:
            self._find(self.peaks.size, "", f"entry {self.peaks.size} is missing in the audit log")
            self.ended = True
        elif self.peaks.size >= log.size:
            self.ended = True
            if self.peaks != log.peaks and not self._lost:
                self._find(self.proven, "", f"an entry from {self.proven} on is not what was appended to the tree")

    def take_findings(self) -> list[Finding]:
        """What was found since the last time."""
        found, self.findings = self.findings, []
        return found

    def _prove(self, signed: store.Checkpoint, keys: Sequence[note.Key]) -> None:
        try:
            read = note.read(signed.note)
        except Invalid:
            read = None
        if read is None or not read.signed_by(keys) or (read.size, read.root) != (signed.size, signed.root):
            self._find(self.proven, "", f"the kept checkpoint of {signed.size} entries was edited")
        elif read.root != self.peaks.root and not self._lost:
            # Every later root differs too; the first says where.
            self._find(self.proven, "", f"{self._among()} is not what the checkpoint of {signed.size} signed")
            self._lost = True
        self.proven = signed.size

    def _find(self, index: int, event: str, detail: str) -> None:
        self.findings.append((index, event, detail))

    def _among(self) -> str:
        last = self.peaks.size - 1
        return f"entry {last}" if self.proven >= last else f"one of the entries {self.proven} to {last}"


async def unlogged(
    reading: Transaction, after: tuple[datetime, str], now: datetime
) -> tuple[list[Finding], tuple[datetime, str] | None]:
    """Facts without an entry among the next ones, and how far it looked; None at the end."""
    missing, last = await store.unlogged(reading, after, now - LOGGED, FACTS)
    return [(-1, event, f"the fact {event} is not in the audit log") for event in missing], last


async def check_audit(ctx: ServiceContext, now: datetime) -> int:
    """Compares the next part, from the beginning again behind the end; how many findings are new."""
    async with ctx.database.reading() as reading:
        log = await store.log(reading)
        comparison = await Comparison.begin(reading, log.compared if log.compared < log.size else 0)
        await comparison.advance(reading, ENTRIES)
        missing, last = await unlogged(reading, log.scanned, now)
    found = [*comparison.take_findings(), *missing]
    index = 0 if comparison.ended else comparison.peaks.size
    last = last or START
    new = await record_findings(ctx, found)
    if (index, last) != (log.compared, log.scanned):
        await ctx.database.transaction(lambda tx: store.save_progress(tx, index, last))
    return new


async def record_findings(ctx: ServiceContext, found: Sequence[Finding]) -> int:
    """Saves findings and records those that are new; how many."""
    if not found:
        return 0

    async def work(tx: Transaction) -> int:
        new = 0
        for index, event, detail in found[:MOST]:
            if await store.save_finding(tx, index, event, detail):
                tx.record(fact("ops", AuditViolated(index=index, event=event, detail=detail), reason=detail))
                new += 1
        return new

    new = await ctx.database.transaction(work)
    violations.inc(new)
    return new
