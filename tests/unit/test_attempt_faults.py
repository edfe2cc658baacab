"""Why a remedy was taken back: only what was seen of the remedy itself is held against it."""

from collections.abc import Callable

import pytest

from services.patcher.attempt import Observation, Outcome, RollbackRequested, State
from tests.unit.attempt_stories import FAIL, Story, permitted, probation, word


@pytest.mark.parametrize(
    ("story", "failure"),
    [
        (lambda: probation().sees(FAIL, word(Outcome.REVERTED, "rollback")), "verdict"),
        (lambda: permitted().sees(word(Outcome.REVERTED, detail="DID_NOT_START", unsolicited=True)), "did_not_start"),
        (lambda: probation().sees(word(Outcome.REVERTED, detail="DEAD_MAN", unsolicited=True)), ""),
        (lambda: permitted().sees(word(Outcome.REVERTED, detail="PERMIT_STALE")), ""),
        (lambda: permitted().sees(word(Outcome.REFUSED, detail="KILL_SWITCH")), ""),
        (
            lambda: probation().sees(
                RollbackRequested("operators/ann", "kill switch"), word(Outcome.REVERTED, "rollback")
            ),
            "",
        ),
    ],
)
def test_only_a_verdict_and_a_failed_start_speak_against_a_remedy(story: Callable[[], Story], failure: str) -> None:
    ended = story()
    assert ended.attempt.state is State.ROLLED_BACK
    assert ended.change.facts[-1].failure == failure


@pytest.mark.parametrize(
    ("said", "alone"),
    [
        (word(Outcome.REVERTED, detail="DEAD_MAN", unsolicited=True), True),
        # It was told to go back while its own word was on its way, and had gone back already.
        (word(Outcome.REVERTED, "rollback", detail="REVERTED"), True),
        (word(Outcome.REVERTED, "rollback"), False),
    ],
)
def test_the_record_says_who_took_it_back_whichever_word_comes_first(said: Observation, alone: bool) -> None:
    told = probation().sees(RollbackRequested("patcher", "no beats")).sees(said).change.facts[-1]
    assert told.dead_man is alone
