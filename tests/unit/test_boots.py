"""Which boot is the current one, and when two machines live with one credential."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.boots import MOST, PROOF, Arrival, Boot, BootOutcome, Boots, receive

NOW = 1_800_000_000.0
DELAY = 60.0


def arrive(boots: Boots, boot: str, sequence: int, at: float = 0.0, *, epoch: int = 0, newest: int = 0) -> tuple:
    return receive(boots, Arrival(boot, sequence, NOW + at, epoch, max(epoch, newest)), DELAY)


def after(*beats: tuple[str, int, float]) -> Boots:
    boots = Boots()
    for boot, sequence, at in beats:
        boots = arrive(boots, boot, sequence, at)[1]
    return boots


def test_the_first_boot_and_each_one_never_seen_is_new() -> None:
    outcome, boots = arrive(Boots(), "a", 5)
    assert (outcome, boots.known, boots.take_over_time) == (BootOutcome.NEW, (Boot("a", 5),), NOW)
    outcome, boots = arrive(boots, "b", 1, 3)
    assert (outcome, boots.known, boots.take_over_time) == (BootOutcome.NEW, (Boot("b", 1), Boot("a", 5)), NOW + 3)


def test_the_current_boot_goes_on() -> None:
    outcome, boots = arrive(after(("a", 5, 0)), "a", 6, 1, newest=4)
    assert (outcome, boots.known, boots.take_over_time, boots.epoch) == (
        BootOutcome.CONTINUED,
        (Boot("a", 6),),
        NOW,
        4,
    )


@pytest.mark.parametrize(("boot", "sequence"), [("a", 5), ("a", 4), ("b", 2), ("b", 1)])
def test_what_comes_again_is_a_repeat_of_whatever_boot(boot: str, sequence: int) -> None:
    boots = after(("a", 5, 0), ("b", 2, 1))
    assert arrive(boots, boot, sequence, 500) == (BootOutcome.REPEATED, boots)


@pytest.mark.parametrize(("later", "outcome"), [(60.0, BootOutcome.LATE), (60.5, BootOutcome.RETURNED)])
def test_a_former_boot_is_late_for_as_long_as_a_beat_may_be_on_its_way(later: float, outcome: BootOutcome) -> None:
    assert arrive(after(("a", 5, 0), ("b", 1, 10)), "a", 6, 10 + later)[0] is outcome


def test_what_is_late_changes_nothing_but_what_was_received_of_it() -> None:
    boots = after(("a", 5, 0), ("b", 1, 10))
    outcome, then = arrive(boots, "a", 9, 20)
    assert (outcome, then.known) == (BootOutcome.LATE, (Boot("b", 1), Boot("a", 9)))
    assert (then.take_over_time, then.returns) == (boots.take_over_time, 0)
    assert arrive(then, "a", 9, 21)[0] is BootOutcome.REPEATED


def test_in_a_session_that_began_after_the_current_boots_last_beat_it_lives() -> None:
    boots = arrive(after(("a", 5, 0)), "b", 1, 10, epoch=3)[1]
    assert arrive(boots, "a", 6, 11, epoch=3)[0] is BootOutcome.LATE
    assert arrive(boots, "a", 6, 11, epoch=4)[0] is BootOutcome.RETURNED


def test_a_clock_that_was_set_back_hides_no_clone_for_as_long() -> None:
    boots = after(("a", 5, 0), ("b", 1, 10))
    outcome, boots = arrive(boots, "a", 6, -5000)
    assert (outcome, boots.take_over_time) == (BootOutcome.LATE, NOW - 5000)
    assert arrive(boots, "a", 7, -5000 + 61)[0] is BootOutcome.RETURNED


def alternating(times: int, pause: float = 100.0) -> list[BootOutcome]:
    boots, found, at = Boots(), [], 0.0
    for place in range(times):
        outcome, boots = arrive(boots, "ab"[place % 2], 1 + place, at)
        found.append(outcome)
        at += pause
    return found


def test_two_that_alternate_and_advance_are_clones_at_the_third_return() -> None:
    assert alternating(2 + PROOF) == [
        BootOutcome.NEW,
        BootOutcome.NEW,
        BootOutcome.RETURNED,
        BootOutcome.RETURNED,
        BootOutcome.CLONED,
    ]


def test_who_is_a_clone_changes_nothing() -> None:
    boots = after(("a", 1, 0), ("b", 2, 100), ("a", 3, 200), ("b", 4, 300))
    assert boots.returns == PROOF - 1
    assert arrive(boots, "a", 5, 400) == (BootOutcome.CLONED, boots)


def test_a_new_boot_in_between_is_a_machine_that_starts_again_and_again() -> None:
    boots = after(("a", 1, 0), ("b", 2, 100), ("a", 3, 200), ("b", 4, 300), ("c", 1, 400))
    assert boots.returns == 0
    assert arrive(boots, "a", 9, 500)[0] is BootOutcome.RETURNED


def test_one_machine_may_return_after_a_pause() -> None:
    boots = after(("a", 1, 0), ("b", 1, 100))
    outcome, boots = arrive(boots, "a", 2, 500)
    assert (outcome, boots.returns, boots.known) == (BootOutcome.RETURNED, 1, (Boot("a", 2), Boot("b", 1)))
    for sequence in range(3, 50):
        outcome, boots = arrive(boots, "a", sequence, 500 + sequence)
        assert outcome is BootOutcome.CONTINUED
    assert boots.returns == 1


def test_so_many_boots_are_remembered_and_no_more() -> None:
    boots = after(*((f"b{place}", 1, float(place)) for place in range(MOST + 3)))
    assert len(boots.known) == MOST
    assert boots.known[0].id == f"b{MOST + 2}"
    assert arrive(boots, "b3", 1, 99)[0] is BootOutcome.REPEATED
    assert arrive(boots, "b2", 1, 99)[0] is BootOutcome.NEW


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 5)), max_size=30))
def test_a_repeat_of_anything_that_was_received_is_a_repeat(beats: list[tuple[str, int, int]]) -> None:
    boots, at = Boots(), 0.0
    for boot, sequence, pause in beats:
        at += pause * 30.0
        outcome, then = arrive(boots, boot, sequence, at)
        if outcome is BootOutcome.CLONED:
            assert then == boots
            return
        boots = then
        assert arrive(boots, boot, sequence, at) == (BootOutcome.REPEATED, boots)
        assert len({known.id for known in boots.known}) == len(boots.known)


@given(st.permutations([("a", n) for n in range(1, 5)] + [("b", n) for n in range(1, 5)]))
def test_one_restart_is_never_a_clone_however_its_beats_are_reordered(beats: list[tuple[str, int]]) -> None:
    boots = Boots()
    for place, (boot, sequence) in enumerate(beats):
        outcome, boots = arrive(boots, boot, sequence, float(place))
        assert outcome is not BootOutcome.CLONED
