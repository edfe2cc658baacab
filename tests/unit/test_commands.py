"""Commands: what may be issued, when it is written, and which of an agent's receipts stand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.ingest import command_lifecycle
from services.ingest.command_lifecycle import FINAL, LIVE, OWNERS, Kind, Outcome, Receipt, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def receipt(outcome: Outcome) -> Receipt:
    return Receipt("c", "a", 1, 1, outcome, "", "1.2.3", "", unsolicited=False)


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
        command_lifecycle.check_new(kind, generation, release, "d")
    assert caught.value.field == field


def test_each_kind_can_be_issued() -> None:
    for kind in Kind:
        generation = 1 if kind in (Kind.COMMIT, Kind.ROLLBACK) else 0
        assert command_lifecycle.check_new(kind, generation, "1.2.3", "d") is kind


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
    assert command_lifecycle.due(state, at, NOW, new_session=new_session) is written


def test_the_first_final_outcome_stands() -> None:
    late = command_lifecycle.settle(Kind.COMMIT, State.PENDING, Outcome.REVERTED, receipt(Outcome.COMMITTED))
    assert (late.final, late.recorded, late.switched) == (None, False, False)
    assert late.state is State.DONE


def test_what_was_committed_may_be_rolled_back_when_asked_for() -> None:
    asked = command_lifecycle.settle(Kind.ROLLBACK, State.RECEIVED, Outcome.COMMITTED, receipt(Outcome.REVERTED))
    assert (asked.final, asked.recorded, asked.switched) == (Outcome.REVERTED, True, True)
    unsolicited = command_lifecycle.settle(Kind.UPDATE, State.DONE, Outcome.COMMITTED, receipt(Outcome.REVERTED))
    assert (unsolicited.final, unsolicited.recorded) == (None, False)


def test_a_late_receipt_is_recorded_but_does_not_change_how_a_command_ended() -> None:
    late = command_lifecycle.settle(Kind.UPDATE, State.EXPIRED, None, receipt(Outcome.APPLIED))
    assert (late.state, late.recorded, late.switched) == (None, True, True)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(Outcome.APPLIED, State.DONE), (Outcome.REFUSED, State.REFUSED), (Outcome.FAILED, State.FAILED)],
)
def test_a_receipt_ends_its_command(outcome: Outcome, state: State) -> None:
    assert command_lifecycle.settle(Kind.UPDATE, State.RECEIVED, None, receipt(outcome)).state is state


def test_every_state_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == set(State)
    assert all(OWNERS[state][2] is State.EXPIRED for state in LIVE)


@given(st.lists(st.tuples(st.sampled_from([Kind.UPDATE, Kind.COMMIT]), st.sampled_from(list(Outcome))), max_size=20))
def test_without_a_rollback_the_final_outcome_never_changes(receipts: list[tuple[Kind, Outcome]]) -> None:
    final: Outcome | None = None
    for kind, outcome in receipts:
        settled = command_lifecycle.settle(kind, State.RECEIVED, final, receipt(outcome))
        if final is not None:
            assert settled.final is None
            assert not (settled.recorded and outcome in FINAL and outcome is not final)
        final = settled.final or final
