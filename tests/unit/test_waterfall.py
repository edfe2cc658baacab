"""A trace becomes a waterfall: nothing is lost, nothing overlaps its place, waiting is narrowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.waterfall import ALIKE, FULL, GAP, MARK, WAIT, Row, Step, axis, rows


def step(name: str, start: float, end: float, parent: str = "", *, service: str = "ingest", error: str = "") -> Step:
    return Step(name, parent, service, name, start, end, error)


def poll(number: int, start: float, error: str = "") -> Step:
    return Step(f"p{number}", "root", "patcher", "GetTelemetry", start, start + 0.01, error)


def names(found: list[Row]) -> list[tuple[str, int]]:
    return [(row.steps[0].name, row.depth) for row in found]


def test_steps_stand_below_their_parents_in_order_of_their_start() -> None:
    steps = [step("late", 2, 3, "root"), step("root", 0, 4), step("early", 1, 2, "root"), step("leaf", 2, 3, "late")]
    assert names(rows(steps)) == [("root", 0), ("early", 1), ("late", 1), ("leaf", 2)]


def test_a_step_whose_parent_is_missing_stands_at_the_root() -> None:
    assert names(rows([step("a", 0, 1), step("orphan", 1, 2, "nobody")])) == [("a", 0), ("orphan", 0)]


def test_steps_that_are_each_others_parents_are_shown_all_the_same() -> None:
    assert len(rows([step("a", 0, 1, "b"), step("b", 0, 1, "a"), step("self", 0, 1, "self")])) == 3


def test_many_equal_polls_share_a_row_and_one_that_failed_stands_alone() -> None:
    root = step("root", 0, 9)
    polls = [poll(number, float(number)) for number in range(ALIKE + 2)]
    found = rows([root, *polls, poll(99, 8, "no answer")])
    assert [len(row.steps) for row in found] == [1, ALIKE + 2, 1]
    assert found[2].error == "no answer"
    assert rows([root, *polls[:ALIKE]])[1].steps == (polls[0],)


def test_a_long_stretch_without_work_takes_two_columns() -> None:
    steps = [step("a", 0, 1), step("b", 100, 101)]
    made = axis(steps, 42)
    assert made.narrowed == 99
    first, second = made.bar([steps[0]]), made.bar([steps[1]])
    assert first == FULL * 20 + GAP + " " + " " * 20
    assert second == " " * 20 + GAP + " " + FULL * 20


def test_a_step_that_waits_across_an_idle_stretch_shows_a_line_there() -> None:
    parent = step("probation", 0, 101)
    steps = [parent, step("a", 0, 1, "probation"), step("b", 100, 101, "probation")]
    bar = axis(steps, 42).bar([parent])
    assert bar == FULL * 20 + WAIT * MARK + FULL * 20


def test_the_calls_below_shared_polls_share_a_row_too() -> None:
    root = step("root", 0, 9)
    polls = [poll(number, float(number)) for number in range(5)]
    answers = [Step(f"a{n}", f"p{n}", "ingest", "GetTelemetry", n + 0.001, n + 0.009) for n in range(5)]
    found = rows([root, *polls, *answers])
    assert [(len(row.steps), row.depth, row.steps[0].service) for row in found] == [
        (1, 0, "ingest"),
        (5, 1, "patcher"),
        (5, 2, "ingest"),
    ]


def test_work_that_is_followed_later_by_a_child_is_no_waiting() -> None:
    stage = step("stage", 10, 40)
    steps = [step("beat", 0, 1), stage, step("issue", 40.5, 41, "stage")]
    assert axis(steps, 60).narrowed == 9
    assert WAIT not in axis(steps, 60).bar([stage])


def test_a_short_burst_beside_long_work_keeps_some_columns() -> None:
    short, long = step("short", 0, 0.01), step("long", 100, 200)
    assert axis([short, long], 60).bar([short]).count(FULL) == 6


def test_an_instant_is_still_seen() -> None:
    steps = [step("long", 0, 10), step("instant", 5, 5)]
    assert axis(steps, 20).bar([steps[1]]).count(FULL) == 1


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
    steps = [step(str(own), start, start + length, str(parent)) for own, (parent, start, length) in unique.items()]
    found = rows(steps)
    assert sorted(one.id for row in found for one in row.steps) == sorted(one.id for one in steps)
    made = axis(steps, width)
    for row in found:
        bar = made.bar(row.steps)
        assert len(bar) == width
        assert FULL in bar or WAIT in bar
