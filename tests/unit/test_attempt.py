"""The machine of an attempt: every observation in every state, also late, twice and out of order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.patcher import attempt as heart
from services.patcher.attempt import (
    FINAL,
    LIVE,
    OWNERS,
    UNPERMITTED,
    Attempt,
    Bounds,
    CancelRequested,
    Change,
    CommandFinished,
    CommandIssued,
    CommandLost,
    DeadlinePassed,
    ErrandKind,
    Gated,
    Judged,
    Observation,
    Outcome,
    Permitted,
    Purpose,
    RollbackRequested,
    Seen,
    Staged,
    StagingFinished,
    StagingLost,
    State,
    Told,
)
from services.patcher.policy import Action, Allow, Hold, Refuse, Severity
from services.patcher.verdict import Probe, Result, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = Attempt(
    id="a1", incident="i1", decision="d1", plugin="p1", merchant="m1", package="checkout", action=Action.PATCH,
    from_release="1.2.0", to_release="1.2.3", digest="f" * 64, severity=Severity.MEDIUM, symptom="webhook_fail_rate",
    round=1, confidence=0.87, bounds=Bounds(dead_man=60), create_time=START, update_time=START, deadline=START,
    from_generation=3,
)  # fmt: skip
ALLOWED = Gated(Allow(), needs_staging=True)
PASSED = StagingFinished(Staged(True, 6, 6, 1.0))
PASS = Judged(Verdict(Result.PASS, "healed"))
FAIL = Judged(Verdict(Result.FAIL, "worse"))
UNSURE = Judged(Verdict(Result.INSUFFICIENT, "few beats"))
HELD = Gated(Hold("KILL_SWITCH", "stopped"), needs_staging=True)


def word(
    outcome: Outcome,
    kind: str = "update",
    *,
    generation: int = 4,
    fence: int = 7,
    detail: str = "",
    unasked: bool = False,
) -> CommandFinished:
    return CommandFinished("c1", kind, generation, fence, outcome, detail, START, unasked)


class Story:
    """An attempt with everything that followed from what it saw."""

    def __init__(self, attempt: Attempt = NEW) -> None:
        self.change = Change(attempt)
        self.now = START

    def sees(self, *observations: Observation, after: float = 0.0) -> "Story":
        self.now += timedelta(seconds=after)
        for observation in observations:
            self.change = self.change.then(heart.next(self.change.attempt, observation, self.now))
        return self

    @property
    def attempt(self) -> Attempt:
        return self.change.attempt

    @property
    def told(self) -> list[Told]:
        return [fact.told for fact in self.change.facts]

    def errands(self, kind: ErrandKind) -> list[dict[str, object]]:
        return [errand.payload for errand in self.change.errands if errand.kind is kind]


ISSUED = CommandIssued(Purpose.SWITCH, 1, "c1", 4, 7)
PERMITTED = Permitted("c1", 4, 7)


def applying() -> Story:
    return Story().sees(ALLOWED, PASSED, ALLOWED, ISSUED)


def permitted() -> Story:
    return applying().sees(PERMITTED)


def probation() -> Story:
    return permitted().sees(word(Outcome.APPLIED))


def committing() -> Story:
    return probation().sees(PASS, after=6)


def rolling_back() -> Story:
    return probation().sees(FAIL, after=3)


def unconfirmed() -> Story:
    return committing().sees(DeadlinePassed(), after=100)


def test_a_good_patch_goes_all_the_way() -> None:
    story = committing().sees(word(Outcome.COMMITTED, "commit"))
    assert story.attempt.state is State.SUCCESS
    assert story.told == [Told.STAGED, Told.APPLIED, Told.COMMITTING, Told.SUCCEEDED]
    assert [p["kind"] for p in story.errands(ErrandKind.ISSUE_COMMAND)] == ["update", "commit"]


def test_only_the_agents_receipt_makes_success() -> None:
    assert committing().attempt.state is State.COMMITTING
    assert committing().sees(PASS, PASS, UNSURE).attempt.state is State.COMMITTING


def test_a_new_attempt_is_told_unless_it_is_refused_at_once() -> None:
    told = [fact.told for fact in heart.begin(NEW, ALLOWED, START).facts]
    refused = [fact.told for fact in heart.begin(NEW, Gated(Refuse("SEVERITY", "no"), True), START).facts]
    assert (told, refused) == ([Told.CREATED], [Told.REFUSED])


def test_a_release_that_fails_its_tests_ends_the_attempt_with_nothing_applied() -> None:
    story = Story().sees(ALLOWED, StagingFinished(Staged(False, 5, 6, 1.0, failures=("signature: wrong",))))
    assert story.attempt.state is State.FAILED
    assert story.told == [Told.STAGED, Told.FAILED]
    assert story.change.facts[-1].failure == "staging_failed"


def test_held_is_told_once_and_the_attempt_goes_on_where_it_was() -> None:
    story = Story().sees(HELD, HELD, HELD)
    assert (story.attempt.state, story.attempt.held_by, story.told) == (State.PENDING, "KILL_SWITCH", [Told.HELD])
    assert story.sees(ALLOWED).attempt.state is State.STAGING


def test_a_permit_denied_by_the_kill_switch_puts_the_attempt_back_and_a_new_command_follows() -> None:
    story = applying().sees(word(Outcome.REFUSED, detail="KILL_SWITCH"))
    assert (story.attempt.state, story.attempt.held_by) == (State.STAGED, "KILL_SWITCH")
    again = story.sees(HELD, ALLOWED)
    assert (again.attempt.state, again.attempt.tries, again.attempt.command) == (State.APPLYING, 2, "")
    assert [p["number"] for p in again.errands(ErrandKind.ISSUE_COMMAND)] == [1, 2]
    assert again.told.count(Told.HELD) == 1


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
        story.sees(word(Outcome.REVERTED, unasked=True))
        assert story.attempt.state is State.ROLLED_BACK
        assert story.change.facts[-1].dead_man is True


def test_a_late_commit_is_success_even_when_a_rollback_was_wanted() -> None:
    for story in (probation(), committing(), rolling_back(), unconfirmed()):
        assert story.sees(word(Outcome.COMMITTED, "commit")).attempt.state is State.SUCCESS


def test_insufficient_evidence_asks_the_probe_and_extends_once() -> None:
    story = probation().sees(UNSURE, after=36)
    assert (story.attempt.probe, story.attempt.deadline) == (Probe.ASKED, story.attempt.last_commit)
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
    assert (story.attempt.state, story.told[-1]) == (State.ROLLBACK_FAILED, Told.ROLLBACK_FAILED)


class TestUnconfirmed:
    """The final word never came; a beat of the right age tells."""

    late = timedelta(seconds=70)

    def seen(self, generation: int, after: timedelta = late) -> Seen:
        return Seen(generation, "1.2.3", "f" * 64, START + after)

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
        assert story.told.count(Told.ROLLING_BACK) == 3


class TestTheOtherSlot:
    """A rollback without a known release goes back to what the agent still has."""

    new = replace(NEW, action=Action.ROLLBACK, to_release="", digest="")

    def back(self) -> Story:
        story = Story(self.new).sees(Gated(Allow(), needs_staging=False))
        assert story.errands(ErrandKind.ISSUE_COMMAND)[0]["kind"] == "rollback"
        assert story.errands(ErrandKind.ISSUE_COMMAND)[0]["generation"] == 3
        story.sees(CommandIssued(Purpose.SWITCH, 1, "c1", 3, 7))
        return story.sees(word(Outcome.REVERTED, "rollback", generation=3))

    def test_it_is_watched_and_kept_without_a_commit(self) -> None:
        assert self.back().attempt.state is State.PROBATION
        story = self.back().sees(PASS, after=5)
        assert story.attempt.state is State.SUCCESS
        assert len(story.errands(ErrandKind.ISSUE_COMMAND)) == 1

    def test_when_it_does_not_help_there_is_nothing_left_to_go_back_to(self) -> None:
        assert self.back().sees(FAIL, after=5).attempt.state is State.ROLLBACK_FAILED

    def test_an_agent_without_another_slot_fails_it(self) -> None:
        story = Story(self.new).sees(Gated(Allow(), False), CommandIssued(Purpose.SWITCH, 1, "c1", 3, 7))
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


EDGES = {
    State.PENDING: {State.STAGING, State.APPLYING, State.FAILED, State.CANCELLED, State.REFUSED, State.PENDING},
    State.STAGING: {State.STAGED, State.FAILED, State.CANCELLED},
    State.STAGED: {State.APPLYING, State.FAILED, State.CANCELLED, State.REFUSED, State.STAGED},
    State.APPLYING: {
        State.APPLYING, State.PROBATION, State.STAGED, State.ROLLING_BACK, State.ROLLED_BACK, State.SUCCESS,
        State.UNCONFIRMED, State.FAILED, State.CANCELLED, State.REFUSED,
    },
    State.PROBATION: {
        State.PROBATION, State.COMMITTING, State.ROLLING_BACK, State.ROLLED_BACK, State.SUCCESS, State.ROLLBACK_FAILED,
    },
    State.COMMITTING: {State.SUCCESS, State.ROLLED_BACK, State.ROLLING_BACK, State.UNCONFIRMED},
    State.ROLLING_BACK: {State.ROLLED_BACK, State.ROLLBACK_FAILED, State.UNCONFIRMED, State.SUCCESS},
    State.UNCONFIRMED: {State.SUCCESS, State.ROLLED_BACK, State.ROLLING_BACK, State.ROLLBACK_FAILED},
    State.SUCCESS: {State.ROLLING_BACK, State.ROLLBACK_FAILED},
}  # fmt: skip
PERMITTED_NEVER = frozenset({State.FAILED, State.CANCELLED, State.REFUSED})

ANSWERS = [Allow(), Hold("KILL_SWITCH", ""), Hold("PLUGIN_BUSY", ""), Refuse("SEVERITY", "")]
small = st.integers(1, 3)
# Mostly about the command the stories below begin with, so that words matter.
commands, generations, fences = st.sampled_from(["c1", "c1", "c2"]), st.sampled_from([4, 4, 3, 5]), st.integers(6, 9)
moments = st.integers(0, 900).map(lambda seconds: START + timedelta(seconds=seconds))
words = st.builds(
    CommandFinished,
    commands,
    st.sampled_from(["update", "commit", "rollback", "health_check", "restart"]),
    generations,
    fences,
    st.sampled_from(Outcome),
    st.sampled_from(["", "KILL_SWITCH", "SEVERITY", "NO_ANSWER"]),
    moments,
    st.booleans(),
)
observations = st.one_of(
    st.builds(Gated, st.sampled_from(ANSWERS), st.booleans()),
    st.builds(StagingFinished, st.builds(Staged, st.booleans(), small, small, st.just(1.0))),
    st.builds(StagingLost, st.just("gone")),
    st.builds(CommandIssued, st.sampled_from(Purpose), small, commands, generations, fences),
    st.builds(CommandLost, st.sampled_from(Purpose), small, st.just("away")),
    st.builds(Permitted, commands, generations, fences),
    words,
    st.builds(Judged, st.builds(Verdict, st.sampled_from(Result), st.just("why"))),
    st.builds(Seen, st.integers(2, 6), st.just("1.2.3"), st.just("f"), moments),
    st.just(DeadlinePassed()),
    st.builds(CancelRequested, st.just("x"), st.just("no")),
    st.builds(RollbackRequested, st.just("x"), st.just("no")),
)  # fmt: skip
stories = st.lists(st.tuples(observations, st.sampled_from([0.0, 0.5, 5.0, 40.0, 200.0])), max_size=40)
BEGINNINGS = [
    heart.begin(NEW, HELD, START).attempt,
    heart.begin(replace(NEW, action=Action.RESTART), ALLOWED, START).attempt,
    heart.begin(TestTheOtherSlot.new, ALLOWED, START).attempt,
    TestTheOtherSlot().back().attempt,
    *(story().attempt for story in (applying, permitted, probation, committing, rolling_back, unconfirmed)),
]
beginnings = st.sampled_from(BEGINNINGS)


def live(attempt: Attempt) -> bool:
    return attempt.state in LIVE and attempt.state is not State.UNCONFIRMED


@settings(max_examples=600, deadline=None)
@given(beginnings, stories)
def test_no_sequence_of_observations_leads_where_it_must_not(
    attempt: Attempt, seen: list[tuple[Observation, float]]
) -> None:
    now, keys = START, list[str]()
    for observation, after in seen:
        now += timedelta(seconds=after)
        change = heart.next(attempt, observation, now)
        lawful(attempt, observation, change)
        keys += [errand.key for errand in change.errands if errand.kind is not ErrandKind.WITHDRAW_COMMAND]
        attempt = change.attempt
    assert len(keys) == len(set(keys)), "a key that comes twice is an errand that is never sent"
    for _ in range(8):
        if not live(attempt):
            break
        assert attempt.deadline is not None
        attempt = heart.next(attempt, DeadlinePassed(), attempt.deadline).attempt
    assert not live(attempt), "left alone, every attempt ends by its deadlines"


def every_observation() -> list[Observation]:
    found: list[Observation] = [Gated(answer, flag) for answer in ANSWERS for flag in (True, False)]
    found += [StagingFinished(Staged(good, 1, 1, 1.0)) for good in (True, False)]
    found += [CommandIssued(purpose, 1, name, 4, 7) for purpose in Purpose for name in ("c1", "c2")]
    found += [CommandLost(purpose, 1, "away") for purpose in Purpose]
    found += [Permitted(name, 4, fence) for name in ("c1", "c2") for fence in (7, 8)]
    found += [
        CommandFinished(name, kind, generation, 7, outcome, detail, START, False)
        for name in ("c1", "c2")
        for kind in ("update", "commit", "rollback", "health_check")
        for generation in (3, 4, 5)
        for outcome in Outcome
        for detail in ("", "KILL_SWITCH", "SEVERITY", "NO_ANSWER")
    ]
    found += [Judged(Verdict(result, "why")) for result in Result]
    found += [Seen(generation, "", "", START + timedelta(hours=1)) for generation in (3, 4, 5)]
    return [*found, StagingLost("gone"), DeadlinePassed(), CancelRequested("x", "no"), RollbackRequested("x", "no")]


def lawful(before: Attempt, observation: Observation, change: Change) -> None:
    for step in change.steps:
        assert step.to_state in EDGES.get(step.from_state, set()), (step, observation)
    if before.state is not change.attempt.state:
        assert change.steps, "a change of state leaves a row of history"
    if before.permitted:
        assert change.attempt.permitted
        assert change.attempt.state not in PERMITTED_NEVER | UNPERMITTED, (before.state, observation)
    if live(change.attempt):
        assert change.attempt.deadline is not None
    if change.attempt.state in FINAL:
        assert change.attempt.end_time is not None


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda attempt: attempt.state.value)
@pytest.mark.parametrize("after", [0.0, 45.0, 3600.0])
def test_every_observation_is_lawful_in_every_state_at_every_age(beginning: Attempt, after: float) -> None:
    now = START + timedelta(seconds=after)
    for observation in every_observation():
        lawful(beginning, observation, heart.next(beginning, observation, now))


@settings(max_examples=300, deadline=None)
@given(beginnings, stories, st.integers(0, 39))
def test_an_observation_that_comes_twice_has_its_effect_once(
    attempt: Attempt, seen: list[tuple[Observation, float]], at: int
) -> None:
    now = START
    for number, (observation, after) in enumerate(seen):
        now += timedelta(seconds=after)
        attempt = heart.next(attempt, observation, now).attempt
        # A refusal answers one command; whoever repeats it after the next was sent carries the old fence.
        if number == at and not isinstance(observation, Gated | Seen | DeadlinePassed | Judged):
            again = heart.next(attempt, observation, now)
            facts = [fact.told for fact in again.facts]
            assert again.attempt.state is attempt.state or Told.APPLIED in facts, (observation, attempt.state)
