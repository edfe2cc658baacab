"""Messages that say nearly the same are suggested for merging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.similarity import ALIKE, MOST_COMPARED, Candidate, similarity, suggestions

LOST = "connection to payment gateway <host> was lost"
LOST_TOO = "connection to payment gateway <host> was lost again"
OTHER = "no stock left for article <num>"


def candidate(id_: str, message: str, occurrences: int = 1, plugin: str = "p", type_: str = "network") -> Candidate:
    return Candidate(id_, plugin, type_, message, occurrences)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (LOST, LOST, True),
        (LOST, LOST_TOO, True),
        (LOST, LOST.upper(), True),
        (LOST, OTHER, False),
        (LOST, "lost was gateway payment to connection", False),
        ("<num> <num> <num> <num>", "<num> <num> <num> <num>", False),
        ("it failed", "it failed", False),
        ("", "", False),
    ],
)
def test_what_is_alike(one: str, other: str, alike: bool) -> None:
    assert (similarity(one, other) >= ALIKE) is alike
    assert similarity(one, other) == similarity(other, one)


def test_a_group_is_what_is_alike_to_the_one_that_occurred_most() -> None:
    (found,) = suggestions([candidate("a", LOST, 2), candidate("b", LOST_TOO, 9), candidate("c", OTHER, 50)])
    assert (found.into.id, [one.id for one in found.reports]) == ("b", ["a"])
    assert found.similarity == pytest.approx(similarity(LOST, LOST_TOO))


def test_only_reports_of_one_plugin_and_type_are_compared() -> None:
    assert (
        suggestions([candidate("a", LOST), candidate("b", LOST, plugin="q"), candidate("c", LOST, type_="odd")]) == []
    )


def test_the_largest_group_comes_first_and_each_report_is_in_one_at_most() -> None:
    some = [candidate(f"l{n}", LOST, n) for n in range(3)] + [candidate(f"s{n}", OTHER, 90 + n) for n in range(2)]
    found = suggestions(some)
    assert [one.into.id for one in found] == ["l2", "s1"]
    ids = [report.id for one in found for report in (one.into, *one.reports)]
    assert sorted(ids) == sorted(one.id for one in some)


def test_of_very_many_those_that_occurred_most_are_compared() -> None:
    many = [candidate(f"{n:04}", LOST, n) for n in range(MOST_COMPARED + 10)]
    (found,) = suggestions(many)
    assert len(found.reports) == MOST_COMPARED - 1
    assert min(one.occurrences for one in found.reports) == 10


@given(st.lists(st.text("abc <>num", max_size=40), max_size=12))
def test_every_suggestion_is_of_reports_that_are_alike(messages: list[str]) -> None:
    for found in suggestions(candidate(str(place), message) for place, message in enumerate(messages)):
        scores = [similarity(found.into.message, one.message) for one in found.reports]
        assert min(scores) == found.similarity >= ALIKE
        assert max(scores) <= 1.0
