"""Commands: what may be issued, when it is written, and which of an agent's words stand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.ingest import commands
from services.ingest.commands import FINAL_WORDS, LIVE, OWNERS, Kind, Result, State, Word

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(word: Word) -> Result:
    return Result("c", "a", 1, 1, word, "", "1.2.3", "", unasked=False)


@pytest.mark.parametrize(
    ("kind", "generation", "release", "field"),
    [
        (0, 0, "", "kind"),
        (99, 0, "", "kind"),
        (Kind.COMMIT, 0, "", "generation"),
        (Kind.ROLLBACK, 0, "", "generation"),
        (Kind.UPDATE, 3, "1.2.3", "generation"),
        (Kind.UPDATE, 0, "", "release"),
        (Kind.RESTART, -1, "", "generation"),
    ],
)
def test_a_command_that_makes_no_sense_names_its_field(kind: int, generation: int, release: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        commands.check_new(kind, generation, release, "d")
    assert caught.value.field == field


def test_each_kind_can_be_issued() -> None:
    for kind in Kind:
        generation = 1 if kind in (Kind.COMMIT, Kind.ROLLBACK) else 0
        assert commands.check_new(kind, generation, "1.2.3", "d") is kind


@pytest.mark.parametrize(
    ("state", "age", "new_session", "written"),
    [
        (State.PENDING, None, False, True),
        (State.DELIVERED, 2.9, False, False),
        (State.DELIVERED, 3.0, False, True),
        (State.RECEIVED, 60.0, False, False),
        (State.RECEIVED, None, False, False),
        (State.RECEIVED, None, True, True),
        (State.DONE, None, True, False),
        (State.SUPERSEDED, None, True, False),
    ],
)
def test_a_command_is_written_until_the_agent_has_it(
    state: State, age: float | None, new_session: bool, written: bool
) -> None:
    at = None if age is None else NOW - timedelta(seconds=age)
    assert commands.due(state, at, NOW, new_session=new_session) is written


def test_the_first_final_word_stands() -> None:
    late = commands.settle(Kind.COMMIT, State.PENDING, Word.REVERTED, said(Word.COMMITTED))
    assert (late.final, late.tell, late.switched) == (None, False, False)
    assert late.state is State.DONE


def test_what_was_committed_may_be_rolled_back_when_asked_for() -> None:
    asked = commands.settle(Kind.ROLLBACK, State.RECEIVED, Word.COMMITTED, said(Word.REVERTED))
    assert (asked.final, asked.tell, asked.switched) == (Word.REVERTED, True, True)
    unasked = commands.settle(Kind.UPDATE, State.DONE, Word.COMMITTED, said(Word.REVERTED))
    assert (unasked.final, unasked.tell) == (None, False)


def test_a_late_word_is_told_but_does_not_change_how_a_command_ended() -> None:
    late = commands.settle(Kind.UPDATE, State.EXPIRED, None, said(Word.APPLIED))
    assert (late.state, late.tell, late.switched) == (None, True, True)


@pytest.mark.parametrize(
    ("word", "state"), [(Word.APPLIED, State.DONE), (Word.REFUSED, State.REFUSED), (Word.FAILED, State.FAILED)]
)
def test_a_word_ends_its_command(word: Word, state: State) -> None:
    assert commands.settle(Kind.UPDATE, State.RECEIVED, None, said(word)).state is state


def test_every_state_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == set(State)
    assert all(OWNERS[state][2] is State.EXPIRED for state in LIVE)


@given(st.lists(st.tuples(st.sampled_from([Kind.UPDATE, Kind.COMMIT]), st.sampled_from(list(Word))), max_size=20))
def test_without_a_rollback_the_final_word_never_changes(heard: list[tuple[Kind, Word]]) -> None:
    standing: Word | None = None
    for kind, word in heard:
        settled = commands.settle(kind, State.RECEIVED, standing, said(word))
        if standing is not None:
            assert settled.final is None
            assert not (settled.tell and word in FINAL_WORDS and word is not standing)
        standing = settled.final or standing
