"""The machine of an attempt: every observation in every state, also late, twice and out of order."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from services.patcher import attempt as heart
from services.patcher.attempt import (
    FINAL,
    LIVE,
    OWNERS,
    AttemptEvent,
    BeatSeen,
    Bounds,
    CancelRequested,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    ErrandKind,
    GatesEvaluated,
    Outcome,
    PluginLeft,
    Purpose,
    RollbackRequested,
    Staged,
    StagingFinished,
    State,
)
from services.patcher.policy import Allow, Refuse
from services.patcher.verdict import Probe
from tests.unit.attempt_stories import (
    ALLOWED,
    FAIL,
    HELD,
    ISSUED,
    NEW,
    OTHER_SLOT,
    PASS,
    PASSED,
    PERMITTED,
    START,
    UNSURE,
    Story,
    applying,
    committing,
    gone_back,
    permitted,
    probation,
    rolling_back,
    unconfirmed,
    word,
)


def test_a_good_patch_goes_all_the_way() -> None:
    story = committing().sees(word(Outcome.COMMITTED, "commit"))
    assert story.attempt.state is State.SUCCESS
    assert story.events == [AttemptEvent.STAGED, AttemptEvent.APPLIED, AttemptEvent.COMMITTING, AttemptEvent.SUCCEEDED]
    assert [p["kind"] for p in story.errands(ErrandKind.ISSUE_COMMAND)] == ["update", "commit"]


def test_only_the_agents_receipt_makes_success() -> None:
    assert committing().attempt.state is State.COMMITTING
    assert committing().sees(PASS, PASS, UNSURE).attempt.state is State.COMMITTING


def test_a_new_attempt_is_told_unless_it_is_refused_at_once() -> None:
    told = [fact.event for fact in heart.create(NEW, ALLOWED, START).facts]
    refused = [fact.event for fact in heart.create(NEW, GatesEvaluated(Refuse("SEVERITY", "no"), True), START).facts]
    assert (told, refused) == ([AttemptEvent.CREATED], [AttemptEvent.REFUSED])


def test_a_release_that_fails_its_tests_ends_the_attempt_with_nothing_applied() -> None:
    story = Story().sees(ALLOWED, StagingFinished(Staged(False, 5, 6, 1.0, failures=("signature: wrong",))))
    assert story.attempt.state is State.FAILED
    assert story.events == [AttemptEvent.STAGED, AttemptEvent.FAILED]
    assert story.change.facts[-1].failure == "staging_failed"


def test_held_is_told_once_and_the_attempt_goes_on_where_it_was() -> None:
    story = Story().sees(HELD, HELD, HELD)
    assert (story.attempt.state, story.attempt.held_by, story.events) == (
        State.PENDING,
        "KILL_SWITCH",
        [AttemptEvent.HELD],
    )
    assert story.sees(ALLOWED).attempt.state is State.STAGING


def test_a_permit_denied_by_the_kill_switch_puts_the_attempt_back_and_a_new_command_follows() -> None:
    story = applying().sees(word(Outcome.REFUSED, detail="KILL_SWITCH"))
    assert (story.attempt.state, story.attempt.held_by) == (State.STAGED, "KILL_SWITCH")
    again = story.sees(HELD, ALLOWED)
    assert (again.attempt.state, again.attempt.tries, again.attempt.command) == (State.APPLYING, 2, "")
    assert [p["number"] for p in again.errands(ErrandKind.ISSUE_COMMAND)] == [1, 2]
    assert again.events.count(AttemptEvent.HELD) == 1


def test_a_permit_denied_by_policy_refuses_and_one_denied_by_bad_luck_is_asked_again_three_times() -> None:
    assert applying().sees(word(Outcome.REFUSED, detail="SEVERITY")).attempt.state is State.REFUSED
    story = applying()
    for fence in range(7, 9):
        story.sees(word(Outcome.REFUSED, detail="NO_ANSWER", fence=fence), ALLOWED)
        assert story.attempt.state is State.APPLYING
    story.sees(word(Outcome.REFUSED, detail="NO_ANSWER", fence=10), ALLOWED)
    assert story.attempt.state is State.FAILED


@pytest.mark.parametrize("story", [Story, lambda: Story().sees(HELD), lambda: Story().sees(ALLOWED), applying])
def test_before_a_permit_everything_can_be_called_off(story: Callable[[], Story]) -> None:
    for wish in (CancelRequested("operators/ann", "no"), RollbackRequested("operators/ann", "no")):
        ended = story().sees(wish)
        assert ended.attempt.state is State.CANCELLED
        assert ended.attempt.end_time is not None


def test_a_command_that_was_called_off_is_withdrawn_also_when_it_was_written_down_later() -> None:
    assert applying().sees(CancelRequested("x", "no")).errands(ErrandKind.WITHDRAW_COMMAND)
    early = Story().sees(ALLOWED, PASSED, ALLOWED, CancelRequested("x", "no"))
    assert not early.errands(ErrandKind.WITHDRAW_COMMAND)
    assert early.sees(ISSUED).errands(ErrandKind.WITHDRAW_COMMAND)[0]["command"] == "c1"


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED])
def test_a_permitted_attempt_whose_agent_switched_nothing_is_rolled_back_never_failed(outcome: Outcome) -> None:
    assert permitted().sees(word(outcome, detail="PERMIT_LATE")).attempt.state is State.ROLLED_BACK


def test_a_permitted_attempt_is_not_cancelled_and_silence_does_not_fail_it() -> None:
    story = permitted().sees(CancelRequested("x", "no"), word(Outcome.EXPIRED), CommandLost(Purpose.SWITCH, 1, "away"))
    assert story.attempt.state is State.APPLYING
    assert story.sees(DeadlinePassed(), after=1000).attempt.state is State.UNCONFIRMED


def test_without_a_permit_silence_fails_it() -> None:
    assert applying().sees(word(Outcome.EXPIRED)).attempt.state is State.FAILED
    assert applying().sees(DeadlinePassed(), after=1000).attempt.state is State.FAILED


def test_the_permit_may_come_before_the_news_of_the_command() -> None:
    story = Story().sees(ALLOWED, PASSED, ALLOWED, PERMITTED)
    assert (story.attempt.command, story.attempt.generation, story.attempt.fence) == ("c1", 4, 7)
    assert story.sees(ISSUED, word(Outcome.APPLIED)).attempt.state is State.PROBATION


def test_an_agent_that_switched_without_a_permit_is_taken_back() -> None:
    story = applying().sees(word(Outcome.APPLIED))
    assert story.attempt.state is State.ROLLING_BACK
    assert story.sees(word(Outcome.REVERTED, "rollback")).attempt.state is State.ROLLED_BACK


def test_a_bad_verdict_takes_it_back_and_only_the_agents_word_ends_it() -> None:
    story = rolling_back()
    assert story.attempt.state is State.ROLLING_BACK
    assert story.errands(ErrandKind.ISSUE_COMMAND)[-1]["kind"] == "rollback"
    assert story.sees(word(Outcome.REVERTED, "rollback")).attempt.state is State.ROLLED_BACK
    assert story.change.facts[-1].dead_man is False


def test_an_agent_that_reverted_alone_is_recorded_as_such_in_every_state_after_the_switch() -> None:
    for story in (permitted(), probation(), committing(), rolling_back(), unconfirmed()):
        story.sees(word(Outcome.REVERTED, unsolicited=True))
        assert story.attempt.state is State.ROLLED_BACK
        assert story.change.facts[-1].dead_man is True


def test_a_late_commit_is_success_even_when_a_rollback_was_wanted() -> None:
    for story in (probation(), committing(), rolling_back(), unconfirmed()):
        assert story.sees(word(Outcome.COMMITTED, "commit")).attempt.state is State.SUCCESS


def test_insufficient_evidence_asks_the_probe_and_extends_once() -> None:
    story = probation().sees(UNSURE, after=36)
    assert (story.attempt.probe, story.attempt.deadline_time) == (Probe.REQUESTED, story.attempt.commit_deadline)
    story.sees(UNSURE, word(Outcome.DONE, "health_check"), word(Outcome.FAILED, "health_check"))
    assert story.attempt.probe is Probe.GOOD
    kinds = [p["kind"] for p in story.errands(ErrandKind.ISSUE_COMMAND)]
    assert kinds.count("health_check") == 1


def test_a_commit_is_never_sent_later_than_the_margin_before_the_dead_man() -> None:
    assert probation().sees(PASS, after=49).attempt.state is State.COMMITTING
    assert probation().sees(PASS, after=51).attempt.state is State.ROLLING_BACK
    assert (Bounds(dead_man=60).margin, Bounds(dead_man=12).margin, Bounds(dead_man=3).margin) == pytest.approx(
        (10, 2.4, 1)
    )


def test_news_of_a_switch_that_come_too_late_to_commit_take_it_back() -> None:
    story = permitted().sees(word(Outcome.APPLIED), after=70)
    assert story.attempt.state is State.ROLLING_BACK


def test_a_failed_rollback_pages() -> None:
    story = rolling_back().sees(word(Outcome.FAILED, "rollback", detail="disk"))
    assert (story.attempt.state, story.events[-1]) == (State.ROLLBACK_FAILED, AttemptEvent.ROLLBACK_FAILED)


class TestUnconfirmed:
    """The final word never came; a beat of the right age tells."""

    late = timedelta(seconds=70)

    def seen(self, generation: int, after: timedelta = late) -> BeatSeen:
        return BeatSeen(generation, "1.2.3", "f" * 64, START + after)

    def test_the_committed_generation_still_running_after_the_dead_man_is_success(self) -> None:
        assert unconfirmed().sees(self.seen(4)).attempt.state is State.SUCCESS

    def test_an_older_generation_is_a_rollback_by_the_agent_itself(self) -> None:
        story = unconfirmed().sees(self.seen(3))
        assert (story.attempt.state, story.change.facts[-1].dead_man) == (State.ROLLED_BACK, True)

    def test_a_beat_from_before_the_dead_man_says_nothing(self) -> None:
        assert unconfirmed().sees(self.seen(4, timedelta(seconds=30))).attempt.state is State.UNCONFIRMED

    def test_a_generation_nobody_wanted_kept_is_taken_back_again_but_not_for_ever(self) -> None:
        story = rolling_back()
        for _ in range(5):
            story.sees(DeadlinePassed(), after=200).sees(self.seen(4, timedelta(hours=1)))
        assert story.attempt.state is State.ROLLBACK_FAILED
        assert story.events.count(AttemptEvent.ROLLING_BACK) == 3


class TestTheOtherSlot:
    """A rollback without a known release goes back to what the agent still has."""

    def test_it_is_watched_and_kept_without_a_commit(self) -> None:
        assert gone_back().attempt.state is State.PROBATION
        story = gone_back().sees(PASS, after=5)
        assert story.attempt.state is State.SUCCESS
        assert len(story.errands(ErrandKind.ISSUE_COMMAND)) == 1

    def test_when_it_does_not_help_there_is_nothing_left_to_go_back_to(self) -> None:
        assert gone_back().sees(FAIL, after=5).attempt.state is State.ROLLBACK_FAILED

    def test_an_agent_without_another_slot_fails_it(self) -> None:
        story = Story(OTHER_SLOT).sees(GatesEvaluated(Allow(), False), CommandIssued(Purpose.SWITCH, 1, "c1", 3, 7))
        assert story.sees(word(Outcome.FAILED, "rollback", generation=3)).attempt.state is State.FAILED


def test_a_success_can_be_taken_back_by_a_person() -> None:
    story = committing().sees(word(Outcome.COMMITTED, "commit"), RollbackRequested("operators/ann", "no good"))
    assert story.attempt.state is State.ROLLING_BACK
    story.sees(word(Outcome.REVERTED, "rollback"))
    assert story.attempt.state is State.ROLLED_BACK


def test_every_live_state_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == LIVE
    assert set(State) == LIVE | FINAL
    assert all(owner.owner and owner.lasts and owner.then for owner in OWNERS.values())


def test_an_unconfirmed_attempt_of_a_plugin_that_left_ends_with_a_page() -> None:
    story = unconfirmed().sees(PluginLeft("retired"))
    assert (story.attempt.state, story.events[-1]) == (State.ROLLBACK_FAILED, AttemptEvent.ROLLBACK_FAILED)
    assert committing().sees(PluginLeft("retired")).attempt.state is State.COMMITTING
