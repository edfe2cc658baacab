"""Where an error is counted: in its own report, in the one its kind was merged into, or among too many kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue import kinds
from services.queue.kinds import OVERFLOW, KnownKind, Mergeable, Place

A, B, C = ("p1", "a"), ("p1", "b"), ("p1", "c")


def placed(
    *wanted: tuple[kinds.Kind, bool], known: dict[kinds.Kind, KnownKind] | None = None, room: int = 9
) -> list[str]:
    found = kinds.places(wanted, known or {}, {"p1": room, "p2": room})
    return [str(found[kind]) for kind, _ in wanted]


def test_a_new_kind_gets_a_report_of_its_own_while_there_is_room() -> None:
    assert placed((A, True), (B, True), (C, True), room=2) == ["own", "own", "overflow"]
    assert placed((A, True), (("p2", "a"), True), room=1) == ["own", "own"], "room is each plugin's own"
    assert kinds.places([(A, True)], {}, {}) == {A: Place.OVERFLOW}


def test_what_has_a_report_or_was_merged_needs_no_room() -> None:
    known = {A: KnownKind(own=True), B: KnownKind(own=True, merged=True), C: KnownKind(overflow=True)}
    assert placed((A, True), (B, True), (C, True), known=known, room=0) == ["own", "merged", "overflow"]
    assert placed((A, False), (B, False), known=known, room=0) == ["own", "merged"]


def test_what_was_counted_among_too_many_leaves_for_a_report_of_its_own_when_it_grows_and_there_is_room() -> None:
    known = {C: KnownKind(overflow=True, counter="c1", counter_value=7)}
    assert placed((C, True), known=known) == ["own"]
    assert placed((C, False), known=known) == ["overflow"]
    assert known[C].counted("c1", 9) == 7
    assert known[C].counted("c1", 5) == 5
    assert known[C].counted("c2", 9) == 0
    assert replace(known[C], counter="").counted("", 9) == 0
    assert replace(known[C], overflow=False).counted("c1", 9) == 0


def test_a_kind_is_new_until_it_has_a_report_or_is_merged() -> None:
    assert KnownKind().new and KnownKind(overflow=True).new
    assert not KnownKind(own=True).new and not KnownKind(merged=True).new


ONE, INTO = Mergeable("1", "p", "m", "a"), Mergeable("2", "p", "m", "b")


@pytest.mark.parametrize(
    ("one", "into", "reason"),
    [
        (ONE, INTO, None),
        (replace(ONE, merged_into="2"), INTO, None),
        (ONE, ONE, "MERGED_INTO_ITSELF"),
        (replace(ONE, plugin="q"), INTO, "OTHER_PLUGIN"),
        (replace(ONE, merchant="n"), INTO, "OTHER_PLUGIN"),
        (replace(ONE, fingerprint=OVERFLOW), INTO, "TOO_MANY_KINDS"),
        (ONE, replace(INTO, fingerprint=OVERFLOW), "TOO_MANY_KINDS"),
        (replace(ONE, merged_into="3"), INTO, "MERGED_ELSEWHERE"),
    ],
)
def test_which_reports_may_become_one(one: Mergeable, into: Mergeable, reason: str | None) -> None:
    refusal = kinds.merge_refusal(one, into)
    assert (refusal and refusal[0]) == reason
    assert refusal is None or len(refusal[1]) > 20


@pytest.mark.parametrize(
    ("before", "occurrences", "state"),
    [
        ("resolved", 0, "resolved"),
        ("closed", 0, "closed"),
        ("closed", 1, "new"),
        ("escalated", 0, "new"),
        ("new", 3, "new"),
    ],
)
def test_what_is_on_its_own_again_is_looked_at_unless_it_was_over(before: str, occurrences: int, state: str) -> None:
    assert kinds.state_after_split(before, occurrences) == state


@pytest.mark.parametrize(
    "one", ["new", "triaging", "in_progress", "escalated", "resolved_pending", "resolved", "closed"]
)
@pytest.mark.parametrize("into", ["new", "in_progress", "resolved_pending", "resolved", "closed"])
def test_what_was_thought_over_is_looked_at_again_when_something_open_is_merged_into_it(one: str, into: str) -> None:
    expected = one in {"new", "triaging", "in_progress", "escalated"} and into in {"resolved", "closed"}
    assert kinds.reopens(one, into) is expected


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C, ("p1", "d")]), st.booleans()), unique_by=lambda one: one[0]),
    st.integers(0, 4),
)
def test_never_more_new_reports_than_there_is_room_for_and_nothing_is_lost(
    wanted: list[tuple[kinds.Kind, bool]], room: int
) -> None:
    found = kinds.places(wanted, {B: KnownKind(merged=True)}, {"p1": room})
    assert set(found) == {kind for kind, _ in wanted}
    assert sum(place is Place.OWN for place in found.values()) <= room
