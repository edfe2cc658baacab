"""An export proves itself, and every way of tampering with it is found and named by its first entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ops.audit import entry, export, merkle, note
from services.ops.audit.entry import Fact
from services.ops.audit.export import Header
from services.ops.audit.merkle import Peaks
from services.ops.audit.note import Checkpoint, Signer
from services.ops.audit.verify import Verification, VerificationError, verify

ORIGIN = "prunella/audit/0a1b"
SIGNER = Signer.of(ORIGIN, bytes(range(32)))
THIEF = Signer.of(ORIGIN, bytes(range(1, 33)))
SIGNED = (4, 7, 12)
Lines = list[str]


def facts(count: int = 12, *, reason: str = "because") -> list[bytes]:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    return [
        entry.entry(Fact(f"event {i}", at, "ingest", "incident_opened", "ingest", "p", "", "", reason, "", "", b"x"))
        for i in range(count)
    ]


def written(entries: list[bytes], *, first: int = 0, signed: tuple[int, ...] = SIGNED, by: Signer = SIGNER) -> Lines:
    """The export of a log with these entries, from `first` on."""
    leaves = [merkle.leaf_hash(one) for one in entries]
    peaks, _ = Peaks().append(leaves[:first])
    lines = [export.header_line(Header(ORIGIN, first, len(entries), peaks.hashes, (str(by.key),)))]
    for index in range(first, len(entries)):
        peaks, _ = peaks.append([leaves[index]])
        lines.append(export.entry_line(index, leaves[index], entries[index]))
        if peaks.size in signed:
            lines.append(export.checkpoint_line(by.sign(peaks.size, peaks.root)))
    return lines


def kept(entries: list[bytes], size: int) -> Checkpoint:
    """A checkpoint that somebody kept when the log had `size` entries."""
    peaks, _ = Peaks().append([merkle.leaf_hash(one) for one in entries[:size]])
    return note.read(SIGNER.sign(size, peaks.root))


def convicted(lines: Lines, **arguments: Any) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify(lines, **arguments)
    return caught.value


def changed(lines: Lines, number: int, **fields: Any) -> Lines:
    said = json.loads(lines[number]) | fields
    return [*lines[:number], json.dumps(said) + "\n", *lines[number + 1 :]]


# The header is line 0; checkpoints stand behind entries 3 (line 5), 6 (line 9) and 11 (line 15).
GOOD = written(facts())


def at(index: int) -> int:
    """The line of an entry."""
    return 1 + index + sum(size <= index for size in SIGNED)


def edited(index: int, *, honest_leaf: bool) -> Lines:
    """An entry whose reason was changed, with the old hash of its leaf or with the right one."""
    said = json.loads(GOOD[at(index)])["entry"] | {"reason": "another"}
    leaf = merkle.leaf_hash(entry.encode(said)).hex()
    return changed(GOOD, at(index), entry=said, **({"leaf": leaf} if honest_leaf else {}))


def test_an_untouched_export_proves_itself() -> None:
    assert verify(GOOD) == Verification(ORIGIN, 0, 12, kept(facts(), 12).root, 3, 0, str(SIGNER.key), False)
    assert verify(GOOD, keys=[SIGNER.key], known=[kept(facts(), 5), kept(facts(), 12)]).known == 2


def test_an_export_from_the_middle_proves_itself_too() -> None:
    part = written(facts(), first=5)
    verdict = verify(part, keys=[SIGNER.key], known=[kept(facts(), 5), kept(facts(), 9)])
    assert (verdict.first, verdict.size, verdict.checkpoints) == (5, 12, 2)
    assert "cannot be compared" in convicted(part, known=[kept(facts(), 4)]).detail


def test_a_tool_that_wrote_the_objects_anew_does_no_harm() -> None:
    assert verify([json.dumps(json.loads(line), indent=None, sort_keys=True) for line in GOOD]).size == 12


def test_an_edited_entry_is_named() -> None:
    found = convicted(edited(5, honest_leaf=False))
    assert (found.index, "edited" in found.detail) == (5, True)


def test_an_edit_with_a_fitting_hash_is_found_between_the_checkpoints_around_it() -> None:
    found = convicted(edited(5, honest_leaf=True))
    assert found.index == 4 and "one of the entries 4 to 6" in found.detail


def test_an_entry_that_contradicts_its_payload_is_named() -> None:
    def told(said: Any) -> str:
        return "" if said["reason"] == "because" else "its payload gives another reason"

    found = convicted(edited(5, honest_leaf=True), check_entry=told)
    assert found.index == 5 and "contradicts itself" in found.detail


def test_swapped_entries_are_found() -> None:
    lines = list(GOOD)
    lines[at(8)], lines[at(9)] = lines[at(9)], lines[at(8)]
    assert convicted(lines).index == 8
    renumbered = changed(changed(lines, at(8), index=8), at(9), index=9)
    found = convicted(renumbered)
    assert found.index == 7 and "7 to 11" in found.detail


def test_a_missing_and_an_inserted_entry_are_found() -> None:
    assert convicted([line for i, line in enumerate(GOOD) if i != at(2)]).index == 2
    assert convicted([*GOOD[: at(3)], GOOD[at(2)], *GOOD[at(3) :]]).index == 3
    repeated = changed([*GOOD[: at(3)], GOOD[at(2)], *GOOD[at(3) :]], at(3), index=3)
    found = convicted(repeated)
    assert found.index == 3 and "repeats" in found.detail


def test_an_inserted_entry_that_renumbers_the_rest_is_found() -> None:
    forged = facts()
    forged.insert(2, facts(1, reason="forged")[0].replace(b"event 0", b"event X"))
    lines = [line for line in written(forged, by=THIEF) if "checkpoint" not in line]
    signed = [*lines[:5], GOOD[5], *lines[5:]]
    assert convicted(changed(signed, 0, keys=[str(SIGNER.key)])).index == 0


@pytest.mark.parametrize("last", [3, 6, 8, 11])
def test_a_cut_tail_is_found(last: int) -> None:
    found = convicted(GOOD[: at(last) + 1])
    assert found.index == last + 1 and "cut off" in found.detail


def test_a_tail_cut_back_to_an_older_checkpoint_is_convicted_by_a_later_one() -> None:
    short = written(facts(7))
    assert verify(short).size == 7
    found = convicted(short, keys=[SIGNER.key], known=[kept(facts(), 9)])
    assert found.index == 7 and "covers 9 entries" in found.detail


def test_a_log_built_anew_with_the_true_key_is_convicted_by_a_checkpoint_kept_elsewhere() -> None:
    history = facts()
    history[5] = facts(6, reason="rewritten")[5]
    rebuilt = written(history)
    assert verify(rebuilt, keys=[SIGNER.key]).size == 12
    found = convicted(rebuilt, keys=[SIGNER.key], known=[kept(facts(), 3), kept(facts(), 8)])
    assert found.index == 3 and "built anew" in found.detail and "3 to 7" in found.detail


def test_a_log_signed_with_another_key_is_refused_once_the_true_one_is_known() -> None:
    stolen = written(facts(), by=THIEF)
    assert verify(stolen).pinned is False
    assert "no valid signature" in convicted(stolen, keys=[SIGNER.key]).detail
    assert "no valid signature" in convicted(stolen, known=[kept(facts(), 4)]).detail


def test_a_checkpoint_of_another_log_is_refused() -> None:
    other = Signer.of("another/log", bytes(range(32)))
    assert "is of the log" in convicted(GOOD, known=[note.read(other.sign(4, bytes(32)))]).detail


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda lines: [], "no JSON"),
        (lambda lines: lines[1:], "no header"),
        (lambda lines: changed(lines, 0, keys=["nonsense"]), "a key is written"),
        (lambda lines: changed(lines, 0, peaks=["00" * 32]), "header is damaged"),
        (lambda lines: changed(lines, 0, **{"from": 13}), "begins behind"),
        (lambda lines: changed(lines, 0, size=-1), "header is damaged"),
        (lambda lines: [lines[0], "{", *lines[1:]], "where entry 0 should stand"),
        (lambda lines: [lines[0], "[]", *lines[1:]], "no JSON object"),
        (lambda lines: changed(lines, 1, entry={"id": 1}), "no entry"),
        (lambda lines: changed(lines, 1, leaf="zz"), "no entry"),
        (lambda lines: changed(lines, 1, index=True), "no entry"),
        (lambda lines: [lines[0], lines[1].replace('{"index":0', '{"index":0,"index":0'), *lines[2:]], "twice"),
        (lambda lines: changed(lines, 1, entry={"id": "\ud800"}), "edited"),
        (lambda lines: changed(lines, 5, checkpoint="nonsense"), "no signed checkpoint"),
        (lambda lines: [*lines[:4], lines[5], *lines[4:]], "stands behind 3"),
    ],
)  # fmt: skip
def test_a_file_that_is_damaged_is_refused_with_its_place(spoil: Callable[[Lines], Lines], why: str) -> None:
    assert why in convicted(spoil(list(GOOD))).detail


def test_an_empty_log_is_no_proof_of_anything_but_its_emptiness() -> None:
    empty = written([], signed=())
    assert verify(empty).size == 0
    assert convicted(empty, known=[kept(facts(), 4)]).index == 0
