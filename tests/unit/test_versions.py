"""Which of two versions is later, by one rule for plane and agent (semver.org 2.0.0, rule 11)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella_agent.versions import Version, order, parse

ASCENDING = [
    "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
    "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10.0", "2.0.0a1", "2",
]  # fmt: skip


def compared(one: str, other: str) -> int:
    left, right = parse(one), parse(other)
    assert left is not None and right is not None, (one, other)
    return (order(left, right) > 0) - (order(left, right) < 0)


@pytest.mark.parametrize(("one", "other"), list(pairwise(ASCENDING)))
def test_each_is_earlier_than_the_next(one: str, other: str) -> None:
    assert compared(one, other) == -1
    assert compared(other, one) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0.0"), ("v1.2.0", "1.2"), ("1.2.0rc1", "1.2.0-rc1"), ("1.0+a", "1.0+b"), (" 1.0 ", "1.0")],
)
def test_what_says_the_same_is_neither_earlier_nor_later(one: str, other: str) -> None:
    assert compared(one, other) == 0


@pytest.mark.parametrize(
    "text", ["", "main", "1.٢.0", "1..2", "1.2.", "-1", "1.2-", "a1", "1234567890", "1 2", "1.2.0\n3"]
)
def test_what_cannot_be_read_is_none(text: str) -> None:
    assert parse(text) is None


def test_the_parts_of_a_version() -> None:
    assert parse("v1.2.3-rc.1+build.5") == Version((1, 2, 3), ("rc", "1"), "build.5")
    assert parse("3.11.4") == Version((3, 11, 4))
    assert parse("1.2.0rc1") == Version((1, 2, 0), ("rc1",))


@pytest.mark.parametrize(
    ("text", "major"), [("1.2.3", (1,)), ("2", (2,)), ("0.3.1", (0, 3)), ("0", (0, 0)), ("0.0.5", (0, 0))]
)
def test_what_may_not_change_without_people(text: str, major: tuple[int, ...]) -> None:
    version = parse(text)
    assert version is not None and version.major == major


versions = st.builds(
    Version,
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    st.lists(st.sampled_from(["0", "1", "10", "a", "rc", "Z"]), max_size=3).map(tuple),
)


@given(versions, versions, versions)
def test_it_is_an_order(one: Version, other: Version, third: Version) -> None:
    def sign(value: int) -> int:
        return (value > 0) - (value < 0)

    assert order(one, one) == 0
    assert sign(order(one, other)) == -sign(order(other, one))
    if order(one, other) <= 0 and order(other, third) <= 0:
        assert order(one, third) <= 0
