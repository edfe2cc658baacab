"""A token goes on where the page ended, for the same query only."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import paging
from libs.common.errors import Invalid

KEYS = st.lists(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.datetimes(timezones=st.just(UTC)), max_size=4
)
ID = "0198a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b"
QUERIES = st.dictionaries(st.text(max_size=10), st.none() | st.integers() | st.text(max_size=10), max_size=4)


@given(QUERIES, KEYS)
def test_a_token_gives_the_sort_key_back(query: dict[str, object], after: list[object]) -> None:
    assert paging.open_token(paging.token(query, after), query) == after


@given(QUERIES, st.integers(), st.text(max_size=20))
def test_page_size_and_token_do_not_make_another_query(query: dict[str, object], size: int, token: str) -> None:
    made = paging.token(query, [1])
    assert paging.open_token(made, query | {"page_size": size, "page_token": token}) == [1]


@given(QUERIES, QUERIES)
def test_a_token_of_another_query_is_refused(one: dict[str, object], other: dict[str, object]) -> None:
    if one == other:
        return
    with pytest.raises(Invalid) as caught:
        paging.open_token(paging.token(one, [1]), other)
    assert caught.value.reason == "PAGE_TOKEN_OF_ANOTHER_QUERY"
    assert caught.value.field == "page_token"


def test_no_token_means_the_first_page() -> None:
    assert paging.open_token("", {"plugin": "p1"}) is None


@given(st.text(min_size=1, max_size=80))
def test_a_damaged_token_is_invalid_and_never_anything_else(text: str) -> None:
    with pytest.raises(Invalid):
        paging.open_token(text, {})


@pytest.mark.parametrize("after", [[[1]], [{"t": 5}], [{"x": "y"}], [{"t": "yesterday"}]])
def test_a_token_with_foreign_values_is_invalid(after: list[object]) -> None:
    with pytest.raises(Invalid):
        paging.open_token(paging.token({}, after), {})


@pytest.mark.parametrize(("requested", "given_size"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes_are_bounded(requested: int, given_size: int) -> None:
    assert paging.page_size(requested) == given_size


def test_a_negative_page_size_is_invalid() -> None:
    with pytest.raises(Invalid) as caught:
        paging.page_size(-1)
    assert caught.value.field == "page_size"


def test_moments_survive_with_their_microseconds() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)
    assert paging.open_token(paging.token({}, [moment, "id"]), {}) == [moment, "id"]


@dataclass
class Request:
    page_size: int = 0
    page_token: str = ""


@given(st.integers(0, 30), st.integers(1, 7))
def test_pages_one_after_the_other_are_the_whole_list(rows: int, size: int) -> None:
    seen: list[int] = []
    request = Request(size)
    while True:
        page = paging.page(request, {"list": "numbers"}, int)
        (after,) = page.after or [-1]
        found = [number for number in range(rows) if number > after][: page.limit]
        shown, request.page_token = page.cut(found, lambda number: [number])
        assert len(shown) <= size
        seen += shown
        if not request.page_token:
            break
    assert seen == list(range(rows))


def test_a_key_comes_back_in_the_types_of_the_list() -> None:
    moment = datetime(2026, 3, 4, tzinfo=UTC)
    token = paging.token({}, [moment, UUID(ID), 5, "x"])
    assert paging.page(Request(1, token), {}, datetime, UUID, int, str).after == [moment, ID, 5, "x"]


@pytest.mark.parametrize("after", [["no id"], [5], [True], [None], [ID, ID], []])
def test_a_key_of_other_types_is_a_damaged_token(after: list[object]) -> None:
    with pytest.raises(Invalid) as caught:
        paging.page(Request(1, paging.token({}, after)), {}, UUID)
    assert caught.value.reason == "BAD_PAGE_TOKEN"


def test_a_list_of_large_rows_may_have_smaller_pages() -> None:
    assert paging.page(Request(400), {}, int, largest=100).limit == 101
