"""Our Merkle tree and an independent one (pymerkle) agree about every root and every proof."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency

from services.ops.audit import merkle
from services.ops.audit.merkle import Peaks, Range, Subtree

# The tree of the Certificate Transparency reference implementation, in hex, and its roots at each size.
LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
SIZES = st.integers(1, 700)


class Log:
    """A log as the database keeps it: leaves, and the nodes of every eighth level."""

    def __init__(self, size: int) -> None:
        self.entries = [f"entry {number}".encode() for number in range(size)]
        self.leaves = [merkle.leaf_hash(entry) for entry in self.entries]
        self.peaks, nodes = Peaks().append(self.leaves)
        self.nodes = {(node.level, node.index): node.hash for node in nodes}

    def hash_of(self, subtree: Subtree) -> bytes:
        level, (first, after) = merkle.stored_nodes(subtree)
        return merkle.folded([self.nodes[level, i] if level else self.leaves[i] for i in range(first, after)])

    def proof(self, ranges: list[Range]) -> list[bytes]:
        return [merkle.range_hash(found, self.hash_of) for found in ranges]

    def root(self, size: int) -> bytes:
        return merkle.range_hash((0, size), self.hash_of) if size else merkle.EMPTY


# Beyond two kept levels, so that every kind of fold happens.
LARGE = Log(70_000)
PEER = InmemoryTree(algorithm="sha256")
for _entry in LARGE.entries[:700]:
    PEER.append_entry(_entry)


def test_the_roots_are_those_of_the_reference_implementation() -> None:
    peaks = Peaks()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        peaks, _ = peaks.append([merkle.leaf_hash(bytes.fromhex(leaf))])
        assert peaks.root.hex() == root


def test_an_empty_tree_is_the_hash_of_nothing() -> None:
    assert Peaks().root == hashlib.sha256(b"").digest()


def test_the_proofs_of_the_rfc_are_made_of_the_nodes_it_names() -> None:
    """RFC 6962, section 2.1.3: seven leaves."""
    assert merkle.inclusion(0, 7) == [(1, 2), (2, 4), (4, 7)]
    assert merkle.inclusion(3, 7) == [(2, 3), (0, 2), (4, 7)]
    assert merkle.inclusion(4, 7) == [(5, 6), (6, 7), (0, 4)]
    assert merkle.inclusion(6, 7) == [(4, 6), (0, 4)]
    assert merkle.consistency(3, 7) == [(2, 3), (3, 4), (0, 2), (4, 7)]
    assert merkle.consistency(4, 7) == [(4, 7)]
    assert merkle.consistency(6, 7) == [(4, 6), (6, 7), (0, 4)]
    assert merkle.consistency(7, 7) == merkle.consistency(0, 7) == []


@given(SIZES)
def test_roots_agree_with_the_peer(size: int) -> None:
    assert LARGE.root(size) == PEER.get_root(size)


@given(SIZES, st.data())
def test_inclusion_agrees_with_the_peer_and_verifies(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = LARGE.proof(merkle.inclusion(index, size))
    assert [LARGE.leaves[index], *proof] == PEER.prove_inclusion(index + 1, size).path
    assert merkle.included(LARGE.leaves[index], index, size, proof, PEER.get_root(size))


@given(SIZES, st.data())
def test_consistency_agrees_with_the_peer_and_verifies(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    proof = LARGE.proof(merkle.consistency(old, size))
    # The peer cuts its proofs into other parts; what both must agree about is which trees continue each other.
    verify_consistency(LARGE.root(old), LARGE.root(size), PEER.prove_consistency(old, size))
    assert merkle.consistent(old, size, PEER.get_root(old), PEER.get_root(size), proof)


@given(st.integers(1, 70_000), st.data())
def test_a_proof_in_a_large_tree_is_folded_from_kept_nodes(size: int, data: st.DataObject) -> None:
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    inclusion = LARGE.proof(merkle.inclusion(index, size))
    assert merkle.included(LARGE.leaves[index], index, size, inclusion, LARGE.root(size))
    consistency = LARGE.proof(merkle.consistency(old, size))
    assert merkle.consistent(old, size, LARGE.root(old), LARGE.root(size), consistency)


@given(SIZES, st.data())
def test_a_proof_shows_nothing_else(size: int, data: st.DataObject) -> None:
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    proof = LARGE.proof(merkle.inclusion(index, size))
    root = LARGE.root(size)
    assert merkle.included(LARGE.leaves[other], other, size, proof, root) == (index == other)
    assert merkle.included(LARGE.leaves[index], index, size, [*proof, root], root) is False
    assert merkle.included(LARGE.leaves[index], index, size + 1, proof, LARGE.root(size + 1)) is False
    assert merkle.included(LARGE.leaves[index], size, size, proof, root) is False


def test_a_proof_of_a_smaller_tree_is_none_of_a_larger_one() -> None:
    root, old = LARGE.root(4), LARGE.root(2)
    inclusion, consistency = LARGE.proof(merkle.inclusion(0, 4)), LARGE.proof(merkle.consistency(2, 4))
    assert merkle.included(LARGE.leaves[0], 0, 4, inclusion, root)
    assert not merkle.included(LARGE.leaves[0], 0, 8, inclusion, root)
    assert merkle.consistent(2, 4, old, root, consistency)
    assert not merkle.consistent(2, 8, old, root, consistency)


@given(SIZES, st.data())
def test_no_rebuilt_tree_passes_for_a_continuation(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    leaves = list(LARGE.leaves[:size])
    leaves[changed] = merkle.leaf_hash(b"rewritten")
    rebuilt, _ = Peaks().append(leaves)
    proof = LARGE.proof(merkle.consistency(old, size))
    assert not merkle.consistent(old, size, LARGE.root(old), rebuilt.root, proof)


@given(st.lists(st.integers(0, 300), max_size=6))
def test_appending_in_batches_makes_the_same_tree(batches: list[int]) -> None:
    peaks, nodes, done = Peaks(), [], 0
    for count in batches:
        peaks, made = peaks.append(LARGE.leaves[done : done + count])
        nodes, done = nodes + made, done + count
    assert (peaks, nodes) == Peaks().append(LARGE.leaves[:done])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion(index, size)


def test_a_tree_never_grew_from_a_larger_one() -> None:
    with pytest.raises(ValueError, match="never grew"):
        merkle.consistency(4, 3)


def test_peaks_that_fit_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="peaks"):
        Peaks(3, (b"only one",))
