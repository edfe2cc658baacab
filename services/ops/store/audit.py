"""Rows of the audit log: taking facts, appending them, and what proofs are made of.

Rule: one writer at a time, by a lock that ends with its transaction; a second one finds it taken and comes back later.
Facts are taken in the order of their times from a point on, and one that is there already is left out by a look at the
key, so that whatever begins again begins with what is missing. Nothing here changes or removes a row of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.ops.audit import merkle
from services.ops.audit.entry import Fact
from services.ops.audit.merkle import SIZE, Node, Peaks, Range

APPENDING = 7_319_011  # an advisory lock nobody else takes

LOCK = "SELECT pg_try_advisory_xact_lock(:key)"
LOG = "SELECT origin, size, peaks, cursor_time, compared_index, scan_time, scan_event_id FROM ops.audit_log"
PLAIN = (
    "time", "source", "fact", "actor", "plugin", "merchant", "incident", "reason", "traceparent", "payload",
)  # fmt: skip
FACT = ", ".join(f"f.{name}" for name in ("id", *PLAIN, "cause_id"))
# LIMIT in the inner query keeps it a look per row: as a join it would read the whole log, some day.
UNSEQUENCED = f"""
SELECT {FACT} FROM bus.facts f
WHERE f.time >= :floor AND (SELECT 1 FROM ops.audit_entries e WHERE e.event_id = f.id LIMIT 1) IS NULL
ORDER BY f.time, f.id LIMIT :batch
"""
ENTRY_COLUMNS = ("id", "time", "fact", "actor", "plugin", "merchant", "incident")
APPEND = """
INSERT INTO ops.audit_entries (index, event_id, time, fact, actor, plugin, merchant, incident, leaf_hash, entry)
SELECT :first + new.number - 1, event_id, time, fact, actor, plugin, merchant, incident, leaf_hash, entry
FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[]), CAST(:facts AS text[]), CAST(:actors AS text[]),
            CAST(:plugins AS text[]), CAST(:merchants AS text[]), CAST(:incidents AS text[]), CAST(:leaves AS bytea[]),
            CAST(:entries AS bytea[]))
     WITH ORDINALITY AS new(event_id, time, fact, actor, plugin, merchant, incident, leaf_hash, entry, number)
"""
SAVE_NODES = """
INSERT INTO ops.audit_nodes (level, index, hash)
SELECT * FROM unnest(CAST(:levels AS integer[]), CAST(:indexes AS bigint[]), CAST(:hashes AS bytea[]))
"""
GROW = "UPDATE ops.audit_log SET size = :size, peaks = :peaks, cursor_time = :cursor WHERE size = :old"
# Each range by itself: a range is at most 256 rows.
LEAVES = """
SELECT e.index, e.leaf_hash AS hash FROM unnest(CAST(:firsts AS bigint[]), CAST(:afters AS bigint[])) AS r(first, after)
CROSS JOIN LATERAL (SELECT index, leaf_hash FROM ops.audit_entries WHERE index >= r.first AND index < r.after
                    ORDER BY index LIMIT 256) AS e
"""
NODES = """
SELECT n.level, n.index, n.hash
FROM unnest(CAST(:levels AS integer[]), CAST(:firsts AS bigint[]), CAST(:afters AS bigint[])) AS r(level, first, after)
CROSS JOIN LATERAL (SELECT level, index, hash FROM ops.audit_nodes
                    WHERE level = r.level AND index >= r.first AND index < r.after ORDER BY index LIMIT 256) AS n
"""
CHECKPOINT = "SELECT size, root, note, key, time FROM ops.audit_checkpoints"
SAVE_CHECKPOINT = """
INSERT INTO ops.audit_checkpoints (size, root, note, key, time) VALUES (:size, :root, :note, :key, :now)
ON CONFLICT (size) DO NOTHING
"""
SAVE_KEY = "INSERT INTO ops.audit_keys (key, first_use_time) VALUES (:key, :now) ON CONFLICT (key) DO NOTHING"
ENTRY = "SELECT index, event_id, leaf_hash, entry FROM ops.audit_entries"
FILTERS = {
    "actor": "actor = :actor",
    "facts": "fact = ANY(CAST(:facts AS text[]))",
    "plugin": "plugin = :plugin",
    "incident": "incident = :incident",
    "start": "time >= :start",
    "end": "time < :end",
}
CHECK = f"""
SELECT e.index, e.event_id, e.leaf_hash, e.entry, {FACT}
FROM (SELECT * FROM ops.audit_entries WHERE index >= :first ORDER BY index LIMIT :count) AS e
LEFT JOIN bus.facts f ON f.id = e.event_id ORDER BY e.index
"""
UNLOGGED = """
SELECT c.id, c.time, (SELECT 1 FROM ops.audit_entries e WHERE e.event_id = c.id LIMIT 1) IS NULL AS missing
FROM (SELECT f.id, f.time FROM bus.facts f WHERE (f.time, f.id) > (:time, CAST(:id AS uuid)) AND f.time < :before
      ORDER BY f.time, f.id LIMIT :count) AS c ORDER BY c.time, c.id
"""
SAVE_FINDING = """
INSERT INTO ops.audit_findings (index, event_id, detail, time) VALUES (:index, :event, :detail, :now)
ON CONFLICT DO NOTHING
"""
SAVE_PROGRESS = "UPDATE ops.audit_log SET compared_index = :index, scan_time = :time, scan_event_id = CAST(:id AS uuid)"


@dataclass(frozen=True, slots=True)
class Log:
    """The log as a whole; `cursor`: how far facts were appended, `compared`, `scanned`: how far the comparison is."""

    origin: str
    peaks: Peaks
    cursor: datetime
    compared: int
    scanned: tuple[datetime, str]

    @property
    def size(self) -> int:
        """Entries in it."""
        return self.peaks.size


@dataclass(frozen=True, slots=True)
class Leaf:
    """A row of the log."""

    index: int
    event: str
    hash: bytes
    entry: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored checkpoint."""

    size: int
    root: bytes
    note: str
    key: str
    time: datetime


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; empty fields match all."""

    actor: str = ""
    facts: tuple[str, ...] = ()
    plugin: str = ""
    incident: str = ""
    start: datetime | None = None
    end: datetime | None = None


async def try_lock(tx: Transaction) -> bool:
    """Whether this transaction is the one that may append; until it ends."""
    return bool(await tx.value(LOCK, key=APPENDING))


async def log(tx: Transaction) -> Log:
    """The log as it is."""
    row = await tx.first(LOG)
    assert row is not None, "the migration makes the row"
    hashes = tuple(row.peaks[at : at + SIZE] for at in range(0, len(row.peaks), SIZE))
    scanned = (row.scan_time, str(row.scan_event_id))
    return Log(row.origin, Peaks(row.size, hashes), row.cursor_time, row.compared_index, scanned)


async def unsequenced(tx: Transaction, floor: datetime, batch: int) -> list[Fact]:
    """Facts from a moment on that are not in the log, oldest first."""
    return [fact(row) for row in await tx.all(UNSEQUENCED, floor=floor, batch=batch)]


async def append(
    tx: Transaction, before: Log, facts: Sequence[Fact], entries: Sequence[bytes], cursor: datetime
) -> int:
    """Appends entries; the new size. Call only under the lock."""
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    peaks, nodes = before.peaks.append(leaves)
    columns = {f"{name}s": [getattr(one, name) for one in facts] for name in ENTRY_COLUMNS}
    await tx.run(APPEND, first=before.size, leaves=leaves, entries=list(entries), **columns)
    await _save_nodes(tx, nodes)
    grown = await tx.run(GROW, size=peaks.size, peaks=b"".join(peaks.hashes), cursor=cursor, old=before.size)
    assert grown == 1, "only one appends"
    return peaks.size


async def _save_nodes(tx: Transaction, nodes: Sequence[Node]) -> None:
    if nodes:
        levels, indexes = [node.level for node in nodes], [node.index for node in nodes]
        await tx.run(SAVE_NODES, levels=levels, indexes=indexes, hashes=[node.hash for node in nodes])


async def hashes(tx: Transaction, ranges: Sequence[Range]) -> list[bytes]:
    """The hashes of ranges of leaves, as proofs ask for them. Raises KeyError or ValueError when rows are missing."""
    parts = {merkle.stored_nodes(part) for found in ranges for part in merkle.subtrees(found)}
    leaves = sorted(found for level, found in parts if level == 0)
    nodes = sorted((level, found) for level, found in parts if level)
    got: dict[tuple[int, int], bytes] = {}
    if leaves:
        firsts, afters = [first for first, _ in leaves], [after for _, after in leaves]
        got |= {(0, row.index): row.hash for row in await tx.all(LEAVES, firsts=firsts, afters=afters)}
    if nodes:
        ranges_of: Mapping[str, list[int]] = {
            "levels": [level for level, _ in nodes],
            "firsts": [first for _, (first, _) in nodes],
            "afters": [after for _, (_, after) in nodes],
        }
        got |= {(row.level, row.index): row.hash for row in await tx.all(NODES, **ranges_of)}

    def hash_of(part: merkle.Subtree) -> bytes:
        level, (first, after) = merkle.stored_nodes(part)
        return merkle.folded([got[level, index] for index in range(first, after)])

    return [merkle.range_hash(found, hash_of) for found in ranges]


async def root(tx: Transaction, size: int) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return (await hashes(tx, [(0, size)]))[0] if size else merkle.EMPTY


async def peaks(tx: Transaction, size: int) -> Peaks:
    """The peaks of the tree of the first `size` leaves."""
    parts = [(index << level, (index + 1) << level) for level, index in merkle.subtrees((0, size))]
    return Peaks(size, tuple(await hashes(tx, parts)) if parts else ())


async def latest_checkpoint(tx: Transaction) -> Checkpoint | None:
    """The latest checkpoint; None before the first."""
    return _checkpoint(await tx.first(f"{CHECKPOINT} ORDER BY size DESC LIMIT 1"))


async def checkpoint_of(tx: Transaction, size: int) -> Checkpoint | None:
    """The stored checkpoint of exactly this size."""
    return _checkpoint(await tx.first(f"{CHECKPOINT} WHERE size = :size", size=size))


async def checkpoint_before(tx: Transaction, size: int) -> Checkpoint | None:
    """The latest checkpoint below a size."""
    return _checkpoint(await tx.first(f"{CHECKPOINT} WHERE size < :size ORDER BY size DESC LIMIT 1", size=size))


async def checkpoints_between(tx: Transaction, after: int, last: int) -> list[Checkpoint]:
    """Stored checkpoints with after < size ≤ last, smallest first."""
    rows = await tx.all(f"{CHECKPOINT} WHERE size > :after AND size <= :last ORDER BY size", after=after, last=last)
    return [Checkpoint(*row) for row in rows]


async def save_checkpoint(tx: Transaction, size: int, root: bytes, note: str, key: str) -> None:
    """Saves a checkpoint, unless another replica signed this size first, and the key it was signed with."""
    await tx.run(SAVE_KEY, key=key, now=tx.now)
    await tx.run(SAVE_CHECKPOINT, size=size, root=root, note=note, key=key, now=tx.now)


async def keys(tx: Transaction) -> list[str]:
    """Every key the log was signed with, oldest first."""
    return [row.key for row in await tx.all("SELECT key FROM ops.audit_keys ORDER BY first_use_time, key")]


async def newest(tx: Transaction, wanted: AuditFilter, *, before: int, limit: int) -> list[Leaf]:
    """Entries below an index that fit, newest first."""
    values: dict[str, Any] = {name: value for name in FILTERS if (value := getattr(wanted, name))}
    where = "".join(f" AND {FILTERS[name]}" for name in values)
    sql = f"{ENTRY} WHERE index < :before{where} ORDER BY index DESC LIMIT :limit"
    return _leaves(await tx.all(sql, before=before, limit=limit, **values))


async def following(tx: Transaction, first: int, after: int, limit: int) -> list[Leaf]:
    """Entries first ≤ index < after, oldest first."""
    sql = f"{ENTRY} WHERE index >= :first AND index < :after ORDER BY index LIMIT :limit"
    return _leaves(await tx.all(sql, first=first, after=after, limit=limit))


async def by_event(tx: Transaction, event: str) -> Leaf | None:
    """The entry of a fact."""
    found = _leaves(await tx.all(f"{ENTRY} WHERE event_id = CAST(:event AS uuid)", event=event))
    return found[0] if found else None


async def beside_facts(tx: Transaction, first: int, count: int) -> list[tuple[Leaf, Fact | None]]:
    """Entries from an index on, each beside its fact as it is now; None where there is none."""
    rows = await tx.all(CHECK, first=first, count=count)
    return [(_leaves([row])[0], fact(row) if row.id else None) for row in rows]


async def unlogged(
    tx: Transaction, after: tuple[datetime, str], before: datetime, count: int
) -> tuple[list[str], tuple[datetime, str] | None]:
    """Ids of facts that are missing in the log among the next `count`, and the last looked at; None at the end."""
    rows = await tx.all(UNLOGGED, time=after[0], id=after[1], before=before, count=count)
    missing = [str(row.id) for row in rows if row.missing]
    return missing, (rows[-1].time, str(rows[-1].id)) if rows else None


async def save_finding(tx: Transaction, index: int, event: str, detail: str) -> bool:
    """Saves a finding; whether it is new."""
    return bool(await tx.run(SAVE_FINDING, index=index, event=event, detail=detail, now=tx.now))


async def save_progress(tx: Transaction, index: int, scanned: tuple[datetime, str]) -> None:
    """Saves how far the comparison is."""
    await tx.run(SAVE_PROGRESS, index=index, time=scanned[0], id=scanned[1])


def fact(row: Any) -> Fact:
    """A fact from its row, before its payload was read."""
    values = {name: getattr(row, name) for name in PLAIN}
    return Fact(**values, id=str(row.id), cause=row.cause_id)


def _leaves(rows: Iterable[Any]) -> list[Leaf]:
    return [Leaf(row.index, str(row.event_id), row.leaf_hash, row.entry) for row in rows]


def _checkpoint(row: Any) -> Checkpoint | None:
    return Checkpoint(*row) if row else None
