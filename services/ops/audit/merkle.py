"""The Merkle tree of RFC 6962 (RFC 9162, section 2.1): hashes of leaves and nodes, appending, and proofs.

Rule: a leaf is hashed behind 0x00 and a node behind 0x01, so that neither can be taken for the other. Appending needs
only the peaks: the hashes of the complete subtrees that the tree's size is made of. Of the inner nodes only every
eighth level is stored; a subtree in between is folded from at most 128 hashes of the stored level below it.

A proof is first a list of ranges of leaves, `[first, after)`, whose hashes it consists of; who has the hashes fills it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

STORED_EVERY = 8  # a node's hash is stored when its level is a multiple of this
SIZE = 32  # bytes of a hash
EMPTY = hashlib.sha256(b"").digest()

Range = tuple[int, int]
Subtree = tuple[int, int]  # level (0: a leaf) and index among the nodes of that level


@dataclass(frozen=True, slots=True)
class Node:
    """A complete subtree of 2**level leaves that is worth storing."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Peaks:
    """A tree of `size` leaves, by the hashes of its complete subtrees, the largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"a tree of {self.size} leaves has {self.size.bit_count()} peaks, not {len(self.hashes)}")

    def append(self, leaves: Iterable[bytes]) -> tuple[Peaks, list[Node]]:
        """The tree with more leaves (their hashes), and the nodes worth storing that were completed."""
        size, hashes, made = self.size, list(self.hashes), list[Node]()
        for found in leaves:
            level, index = 0, size
            while index & 1:
                found = node_hash(hashes.pop(), found)
                level, index = level + 1, index >> 1
                if level % STORED_EVERY == 0:
                    made.append(Node(level, index, found))
            hashes.append(found)
            size += 1
        return Peaks(size, tuple(hashes)), made

    @property
    def root(self) -> bytes:
        """The hash that stands for the whole tree."""
        return _joined(self.hashes) if self.hashes else EMPTY


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def inclusion(index: int, size: int) -> list[Range]:
    """What proves that the leaf `index` is in the tree of `size` (PATH of RFC 6962)."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    first, after, ranges = 0, size, list[Range]()
    while after - first > 1:
        middle = first + _split(after - first)
        if index < middle:
            ranges.append((middle, after))
            after = middle
        else:
            ranges.append((first, middle))
            first = middle
    return ranges[::-1]


def consistency(old: int, size: int) -> list[Range]:
    """What proves that the tree of `old` leaves is the beginning of the tree of `size` (PROOF of RFC 6962)."""
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {size} leaves never grew from one of {old}")
    first, after, ranges = 0, size, list[Range]()
    while old and old != after:
        middle = first + _split(after - first)
        if old <= middle:
            ranges.append((middle, after))
            after = middle
        else:
            ranges.append((first, middle))
            first = middle
    # The old tree itself is known to who asks, unless it is only a part of what is left.
    if first:
        ranges.append((first, after))
    return ranges[::-1]


def subtrees(found: Range) -> list[Subtree]:
    """The complete subtrees that a range of a proof, or the whole tree (0, size), is made of, from left to right."""
    first, after = found
    parts = list[Subtree]()
    while first < after:
        level = (after - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        parts.append((level, first >> level))
        first += 1 << level
    return parts


def stored_nodes(subtree: Subtree) -> tuple[int, Range]:
    """The stored level a subtree is folded from, and the indexes of the nodes (leaves at level 0) it takes."""
    level, index = subtree
    above = level % STORED_EVERY
    return level - above, (index << above, (index + 1) << above)


def folded(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    row = list(hashes)
    if not row or len(row) & (len(row) - 1):
        raise ValueError(f"{len(row)} hashes make no complete subtree")
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def range_hash(found: Range, hash_of: Callable[[Subtree], bytes]) -> bytes:
    """The hash of a range of a proof."""
    return _joined([hash_of(part) for part in subtrees(found)])


def included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether a proof shows the leaf (its hash) at `index` in the tree with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def consistent(old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the old tree is the beginning of the newer one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old in (0, size):
        return not proof and (old_root == EMPTY if old == 0 else old_root == root)
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, step)
        place, last = place >> 1, last >> 1
    return last == 0 and before == old_root and after == root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _joined(hashes: Sequence[bytes]) -> bytes:
    found = hashes[-1]
    for left in hashes[-2::-1]:
        found = node_hash(left, found)
    return found
