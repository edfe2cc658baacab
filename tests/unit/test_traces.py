"""A trace is complete when everybody took part and no parent is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.ops.traces import Span, missing, ordered

START = datetime(2026, 1, 1, tzinfo=UTC)


def span(name: str, service: str = "ingest", parent: str = "", at: float = 0.0) -> Span:
    start = START + timedelta(seconds=at)
    return Span("t", name, parent, service, name, start, start + timedelta(seconds=1))


def healing() -> list[Span]:
    return [
        span("beat", "ingest"),
        span("react", "decider", "beat", 1),
        span("attempt", "patcher", "react", 2),
        span("switch", "agent", "attempt", 3),
    ]


def test_a_healing_with_all_four_and_every_parent_is_complete() -> None:
    assert missing(healing()) == []


def test_each_service_that_took_no_part_is_named() -> None:
    for service in ("ingest", "decider", "patcher", "agent"):
        left = [found for found in healing() if found.service != service]
        assert f"{service} took no part" in missing(left)


def test_an_error_that_a_person_gets_needs_nobody_but_queue() -> None:
    told = [span("error reported", "queue"), span("triage", "queue", "error reported", 1)]
    assert missing(told) == []
    assert missing([*told, span("step", "worker", "lost", 2)]) == ["the parent of worker “step” (lost) is not here"]


def test_a_missing_parent_is_named_with_its_child() -> None:
    said = missing([*healing(), span("apply", "agent", "lost")])
    assert said == ["the parent of agent “apply” (lost) is not here"]


def test_no_spans_at_all_is_said_plainly() -> None:
    assert missing([]) == ["no span of this trace has arrived"]


def test_many_missing_parents_are_counted_instead_of_listed() -> None:
    said = missing(healing() + [span(f"s{number}", "agent", "lost", number) for number in range(50)])
    assert len(said) == 21
    assert said[-1] == "30 more parents are not here"


def test_a_parent_that_starts_with_its_child_comes_first() -> None:
    names = [found.name for found in ordered([span("a", parent="b"), span("b", parent="c"), span("c")])]
    assert names == ["c", "b", "a"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=30))
def test_order_ends_and_loses_nothing_whatever_parents_foreign_spans_name(edges: list[tuple[int, int, int]]) -> None:
    spans = [span(str(own), parent=str(parent), at=at) for own, parent, at in edges]
    result = ordered(spans)
    assert sorted(map(id, result)) == sorted(map(id, spans))
    assert [found.start for found in result] == sorted(found.start for found in spans)
