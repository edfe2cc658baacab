"""An export is verified with nothing but itself, keys and checkpoints that were kept elsewhere.

Rule: every entry is hashed again from what it says; with each checkpoint the root of the tree so far must be the one
that was signed. What is wrong is named by the first entry it concerns. The file convicts itself of an edit, a swap, a
gap or a repetition; a log that was cut or built anew, and signed with the true key, is convicted by any checkpoint
somebody kept from before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from libs.common.errors import Invalid
from services.ops.audit import entry as entries
from services.ops.audit import export, merkle, note
from services.ops.audit.export import Header, Unreadable
from services.ops.audit.merkle import Peaks
from services.ops.audit.note import Checkpoint, Key

EntryCheck = Callable[[Mapping[str, str]], str]


class VerificationError(Exception):
    """The export is not what was logged; `index` is the first entry that is wrong, or may be."""

    def __init__(self, index: int, detail: str) -> None:
        super().__init__(detail)
        self.index = index
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Verification:
    """What a good export proved. `pinned`: the signatures were checked with keys given from outside."""

    origin: str
    first: int
    size: int
    root: bytes
    checkpoints: int
    known: int
    key: str
    pinned: bool


@dataclass
class _Proof:
    """A verification on its way."""

    header: Header
    keys: Sequence[Key]
    pinned: bool
    known: dict[int, list[Checkpoint]]
    check_entry: EntryCheck
    peaks: Peaks = field(init=False)
    proven: int = 0  # leaves covered by the last checkpoint of the file
    agreed: int = 0  # leaves covered by the last checkpoint kept elsewhere
    checkpoints: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.peaks = Peaks(self.header.first, self.header.peaks)
        except ValueError as wrong:
            raise VerificationError(0, f"the header is damaged: {wrong}") from wrong
        self.proven = self.agreed = self.header.first
        self._compare()

    def entry(self, index: int, leaf: bytes, fields: Mapping[str, str]) -> None:
        """The next entry."""
        due = self.peaks.size
        if index != due:
            raise VerificationError(due, f"entry {due} should stand here, and entry {index} does")
        if _leaf(fields) != leaf:
            raise VerificationError(index, f"entry {index} was edited: it does not have the hash of its leaf")
        event = fields.get("id", "")
        if event in self.seen:
            raise VerificationError(index, f"entry {index} repeats the fact {event} of entry {self.seen[event]}")
        self.seen[event] = index
        if contradiction := self.check_entry(fields):
            raise VerificationError(index, f"entry {index} contradicts itself: {contradiction}")
        self.peaks, _ = self.peaks.append([leaf])
        self._compare()

    def checkpoint(self, text: str) -> None:
        """A checkpoint of the file: it covers exactly what came before it."""
        try:
            found = note.read(text)
        except Invalid as wrong:
            raise VerificationError(
                self.proven, f"a checkpoint behind entry {self.peaks.size - 1}: {wrong.message}"
            ) from wrong
        self._signed(found, self.proven)
        if found.size != self.peaks.size:
            raise VerificationError(
                min(found.size, self.peaks.size),
                f"a checkpoint of {found.size} entries stands behind {self.peaks.size}",
            )
        if found.root != self.peaks.root:
            raise VerificationError(
                self.proven, f"{self._among(self.proven)} is not what the checkpoint of {found.size} signed"
            )
        self.proven = found.size
        self.checkpoints += 1

    def end(self) -> Verification:
        """The verdict once every line was read."""
        size = self.peaks.size
        if size < self.header.size or self.proven < size:
            missing = f"of {self.header.size}" if size < self.header.size else "whose checkpoint is missing"
            raise VerificationError(size, f"the end is cut off: the file ends before entry {size} {missing}")
        for beyond in sorted(self.known):
            if beyond > size:
                raise VerificationError(
                    size, f"the end is cut off: a checkpoint kept elsewhere covers {beyond} entries, not {size}"
                )
            if beyond < self.header.first:
                raise VerificationError(
                    self.header.first,
                    f"the checkpoint of {beyond} entries cannot be compared: this export begins at {self.header.first}",
                )
        known = sum(len(same) for same in self.known.values())
        key = str(self.keys[0]) if len(self.keys) == 1 else f"{len(self.keys)} keys"
        root = self.peaks.root
        return Verification(
            self.header.origin, self.header.first, size, root, self.checkpoints, known, key, self.pinned
        )

    def _compare(self) -> None:
        """With what was kept elsewhere of a tree of this size."""
        for found in self.known.get(self.peaks.size, ()):
            self._signed(found, self.agreed)
            if found.root != self.peaks.root:
                raise VerificationError(
                    self.agreed,
                    f"the log was built anew: {self._among(self.agreed)} is not what stood there when the checkpoint of"
                    f" {found.size} that was kept elsewhere was signed",
                )
            self.agreed = found.size

    def _signed(self, found: Checkpoint, index: int) -> None:
        if found.origin != self.header.origin:
            raise VerificationError(index, f"a checkpoint is of the log {found.origin!r}, not {self.header.origin!r}")
        if not found.signed_by(self.keys):
            whose = "a key that was given" if self.pinned else "a key named in the export"
            raise VerificationError(index, f"the checkpoint of {found.size} entries has no valid signature of {whose}")

    def _among(self, first: int) -> str:
        last = self.peaks.size - 1
        return f"entry {last}" if first >= last else f"one of the entries {first} to {last}"


def verify(
    lines: Iterable[str],
    *,
    keys: Sequence[Key] = (),
    known: Sequence[Checkpoint] = (),
    check_entry: EntryCheck = lambda _fields: "",
) -> Verification:
    """Verifies an export. Raises VerificationError.

    `keys` are those the auditor trusts (else those the export names: then only somebody without the plane's key is
    caught); `known` are checkpoints kept elsewhere; `check_entry` says how an entry contradicts its own payload.
    """
    rest = iter(lines)
    try:
        header = export.read_header(next(rest, ""))
        named = tuple(note.read_key(key) for key in header.keys)
    except (Unreadable, Invalid) as wrong:
        raise VerificationError(0, str(wrong)) from wrong
    by_size: dict[int, list[Checkpoint]] = {}
    for found in known:
        by_size.setdefault(found.size, []).append(found)
    proof = _Proof(header, keys or named, bool(keys), by_size, check_entry)
    for fields in _objects(rest, proof):
        if "checkpoint" in fields:
            proof.checkpoint(str(fields["checkpoint"]))
            continue
        try:
            index, leaf, entry = export.read_entry(fields)
        except Unreadable as wrong:
            raise VerificationError(
                proof.peaks.size, f"where entry {proof.peaks.size} should stand: {wrong}"
            ) from wrong
        proof.entry(index, leaf, entry)
    return proof.end()


def _leaf(fields: Mapping[str, str]) -> bytes:
    try:
        return merkle.leaf_hash(entries.encode(fields))
    except UnicodeEncodeError:
        return b""  # half of a surrogate pair is no text that was ever logged


def _objects(lines: Iterator[str], proof: _Proof) -> Iterator[Mapping[str, object]]:
    for line in lines:
        try:
            yield export.read_line(line)
        except Unreadable as wrong:
            raise VerificationError(
                proof.peaks.size, f"where entry {proof.peaks.size} should stand: {wrong}"
            ) from wrong
