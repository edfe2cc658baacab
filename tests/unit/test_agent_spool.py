"""The spool: bounded, and what changed is never merged away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunella.v1 import agent_pb2 as pb
from prunella_agent.spool import Spool, merge_key


def beat(sequence: int, generation: int = 0) -> pb.Beat:
    return pb.Beat(boot_id="b", sequence=sequence, errors=sequence, generation=generation)


def drained(spool: Spool) -> list[pb.Beat]:
    spool.rewind()
    found = []
    while (one := spool.next()) is not None:
        found.append(one)
    return found


def test_beats_go_out_in_order_and_again_after_a_rewind_until_acknowledged() -> None:
    spool = Spool()
    for n in range(1, 5):
        spool.add(beat(n))
    assert [b.sequence for b in drained(spool)] == [1, 2, 3, 4]
    assert spool.acknowledge(2) == 2
    assert spool.unacknowledged == 2
    assert [b.sequence for b in drained(spool)] == [3, 4]
    assert spool.drop(3) and not spool.drop(9)
    assert [b.sequence for b in drained(spool)] == [4]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(4, 16))
def test_ends_of_every_stretch_survive_while_there_is_room_for_them(lengths: list[int], limit: int) -> None:
    spool, sequence, ends = Spool(max(limit, 2 * len(lengths))), 0, []
    for generation, length in enumerate(lengths):
        numbers = list(range(sequence + 1, sequence + length + 1))
        ends += [numbers[0], numbers[-1]]
        for sequence in numbers:
            spool.add(beat(sequence, generation))
    kept = [b.sequence for b in drained(spool)]
    assert len(kept) <= max(limit, 2 * len(lengths))
    assert set(ends) <= set(kept)
    assert kept == sorted(kept)


def test_it_is_bounded_even_when_everything_changes_all_the_time() -> None:
    spool = Spool(8)
    for n in range(1, 100):
        spool.add(beat(n, generation=n))
    assert len(spool) == 8
    assert [b.sequence for b in drained(spool)] == list(range(92, 100))


def test_failing_inputs_of_a_merged_beat_move_to_the_next() -> None:
    spool = Spool(4)
    for n in range(1, 6):
        one = beat(n)
        if n == 2:
            one.failing_inputs.append("x")
        spool.add(one)
    assert [list(b.failing_inputs) for b in drained(spool)] == [[], ["x"], [], []]


def test_a_stretch_is_health_generation_release_digest_and_configuration() -> None:
    one = beat(1)
    for field, value in [("health", 2), ("generation", 1), ("release", "2"), ("digest", "d"), ("config_digest", "c")]:
        other = beat(1)
        setattr(other, field, value)
        assert merge_key(one) != merge_key(other)
