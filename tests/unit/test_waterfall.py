"""A trace becomes a waterfall: nothing is lost, nothing overlaps its place, waiting is narrowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.waterfall import ALIKE, FULL, GAP, MARK, WAIT, Row, Span, axis, rows


def span(name: str, start: float, end: float, parent: str = "", *, service: str = "ingest", error: str = "") -> Span:
    return Span(name, parent, service, name, start, end, error)


def poll(number: int, start: float, error: str = "") -> Span:
    return Span(f"p{number}", "root", "patcher", "GetTelemetry", start, start + 0.01, error)


def names(found: list[Row]) -> list[tuple[str, int]]:
    return [(row.spans[0].name, row.depth) for row in found]


def test_steps_stand_below_their_parents_in_order_of_their_start() -> None:
    spans = [span("late", 2, 3, "root"), span("root", 0, 4), span("early", 1, 2, "root"), span("leaf", 2, 3, "late")]
    assert names(rows(spans)) == [("root", 0), ("early", 1), ("late", 1), ("leaf", 2)]


def test_a_step_whose_parent_is_missing_stands_at_the_root() -> None:
    assert names(rows([span("a", 0, 1), span("orphan", 1, 2, "nobody")])) == [("a", 0), ("orphan", 0)]


def test_steps_that_are_each_others_parents_are_shown_all_the_same() -> None:
    assert len(rows([span("a", 0, 1, "b"), span("b", 0, 1, "a"), span("self", 0, 1, "self")])) == 3


def test_many_equal_polls_share_a_row_and_one_that_failed_stands_alone() -> None:
    root = span("root", 0, 9)
    polls = [poll(number, float(number)) for number in range(ALIKE + 2)]
    found = rows([root, *polls, poll(99, 8, "no answer")])
    assert [len(row.spans) for row in found] == [1, ALIKE + 2, 1]
    assert found[2].error == "no answer"
    assert rows([root, *polls[:ALIKE]])[1].spans == (polls[0],)


def test_a_long_stretch_without_work_takes_two_columns() -> None:
    spans = [span("a", 0, 1), span("b", 100, 101)]
    made = axis(spans, 42)
    assert made.narrowed == 99
    first, second = made.bar([spans[0]]), made.bar([spans[1]])
    assert first == FULL * 20 + GAP + " " + " " * 20
    assert second == " " * 20 + GAP + " " + FULL * 20


def test_a_step_that_waits_across_an_idle_stretch_shows_a_line_there() -> None:
    parent = span("probation", 0, 101)
    spans = [parent, span("a", 0, 1, "probation"), span("b", 100, 101, "probation")]
    bar = axis(spans, 42).bar([parent])
    assert bar == FULL * 20 + WAIT * MARK + FULL * 20


def test_the_calls_below_shared_polls_share_a_row_too() -> None:
    root = span("root", 0, 9)
    polls = [poll(number, float(number)) for number in range(5)]
    answers = [Span(f"a{n}", f"p{n}", "ingest", "GetTelemetry", n + 0.001, n + 0.009) for n in range(5)]
    found = rows([root, *polls, *answers])
    assert [(len(row.spans), row.depth, row.spans[0].service) for row in found] == [
        (1, 0, "ingest"),
        (5, 1, "patcher"),
        (5, 2, "ingest"),
    ]


def test_work_that_is_followed_later_by_a_child_is_no_waiting() -> None:
    stage = span("stage", 10, 40)
    spans = [span("beat", 0, 1), stage, span("issue", 40.5, 41, "stage")]
    assert axis(spans, 60).narrowed == 9
    assert WAIT not in axis(spans, 60).bar([stage])


def test_a_short_burst_beside_long_work_keeps_some_columns() -> None:
    short, long = span("short", 0, 0.01), span("long", 100, 200)
    assert axis([short, long], 60).bar([short]).count(FULL) == 6


def test_an_instant_is_still_seen() -> None:
    spans = [span("long", 0, 10), span("instant", 5, 5)]
    assert axis(spans, 20).bar([spans[1]]).count(FULL) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 1e5), st.floats(0, 1e4)), min_size=1, max_size=40
    ),
    st.integers(16, 200),
)
def test_whatever_a_trace_holds_every_span_is_shown_once_and_every_bar_fits(
    given_: list[tuple[int, int, float, float]], width: int
) -> None:
    unique = {own: (parent, start, length) for own, parent, start, length in given_}
    spans = [span(str(own), start, start + length, str(parent)) for own, (parent, start, length) in unique.items()]
    found = rows(spans)
    assert sorted(one.id for row in found for one in row.spans) == sorted(one.id for one in spans)
    made = axis(spans, width)
    for row in found:
        bar = made.bar(row.spans)
        assert len(bar) == width
        assert FULL in bar or WAIT in bar
