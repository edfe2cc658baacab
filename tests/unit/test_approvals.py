"""Approvals: who counts, for what, how long, and what no order of events can bring about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from libs.common.errors import Denied, Invalid, Problem, Refused, Stale
from services.patcher import approvals as heart
from services.patcher.approvals import (
    OWNERS,
    Approval,
    ApprovalEvent,
    Plan,
    PlanChanged,
    Quorum,
    Status,
    Tick,
    Times,
    Vote,
    check,
    is_met,
    plan_text,
    read_plan,
    satisfied,
)

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PLAN = Plan("a1", "patch", "checkout", "1.2.0", "2.0.0", "ab" * 32, ("p2", "p1"), 7)
APPROVER, ADMIN = frozenset({"approver"}), frozenset({"approver", "admin"})


def asked(quorum: Quorum | None = None, times: Times | None = None) -> Approval:
    made = heart.create(
        "ap1", "a1", "h1", quorum or Quorum(), authors=["ada"], proposer="decider", times=times or Times(), now=START
    )
    assert [told.event for told in made.facts] == [ApprovalEvent.REQUESTED]
    return made.approval


def yes(operator: str, roles: frozenset[str] = APPROVER, plan: str = "h1", request: str = "") -> Vote:
    return Vote(operator, roles, True, plan, request)


def after(approval: Approval, *observations: heart.Observation, now: datetime = START) -> Approval:
    for observation in observations:
        approval = heart.next(approval, observation, now).approval
    return approval


def test_two_different_people_start_it_and_one_does_not() -> None:
    one = after(asked(), yes("bea"))
    assert one.status is Status.OPEN
    change = heart.next(one, yes("cem"), START)
    assert change.approval.status is Status.APPROVED
    assert [told.event for told in change.facts] == [ApprovalEvent.VOTED, ApprovalEvent.GRANTED]
    assert satisfied(change.approval, "h1", START)
    assert not satisfied(change.approval, "h2", START)


@pytest.mark.parametrize(
    ("vote", "kind", "reason"),
    [
        (yes("ada"), Denied, "APPROVAL_BY_AUTHOR"),
        (yes(" ADA "), Denied, "APPROVAL_BY_AUTHOR"),
        (yes("decider"), Denied, "APPROVAL_BY_PROPOSER"),
        (yes("dan", frozenset({"operator"})), Denied, "APPROVAL_ROLE"),
        (yes("dan", frozenset()), Denied, "APPROVAL_ROLE"),
        (yes(" "), Denied, "APPROVAL_ANONYMOUS"),
        (yes("cem", plan="h0"), Stale, "PLAN_CHANGED"),
        (yes("bea"), Refused, "APPROVED_TWICE"),
        (yes("Bea"), Refused, "APPROVED_TWICE"),
        (Vote("ada", APPROVER, False, "h1"), Denied, "APPROVAL_BY_AUTHOR"),
    ],
)
def test_every_vote_that_does_not_count_has_its_own_error(vote: Vote, kind: type[Problem], reason: str) -> None:
    with pytest.raises(kind) as refused:
        after(asked(), yes("bea"), vote)
    assert refused.value.reason == reason


def test_a_vote_comes_too_late_after_expiry_rejection_and_approval() -> None:
    with pytest.raises(Refused) as late:
        after(asked(), yes("bea"), now=START + timedelta(hours=1))
    assert late.value.reason == "APPROVAL_EXPIRED"
    rejected = after(asked(), Vote("bea", APPROVER, False, "h1", reason="not on a Friday"))
    with pytest.raises(Refused, match="not on a Friday") as gone:
        after(rejected, yes("cem"))
    assert gone.value.reason == "APPROVAL_REJECTED"
    with pytest.raises(Refused) as enough_said:
        after(asked(), yes("bea"), yes("cem"), yes("dan"))
    assert enough_said.value.reason == "APPROVED_ALREADY"


def test_the_same_request_again_is_the_same_vote() -> None:
    once = after(asked(), yes("bea", request="r1"))
    assert after(once, yes("bea", request="r1")) == once
    no = Vote("bea", APPROVER, False, "h1", "r2")
    rejected = after(once, no)
    assert after(rejected, no) == rejected


def test_one_rejection_ends_it_even_by_who_approved_and_even_after_the_quorum() -> None:
    granted = after(asked(), yes("bea"), yes("cem"))
    change = heart.next(granted, Vote("bea", APPROVER, False, "h1", reason="the digest is wrong"), START)
    assert change.approval.status is Status.REJECTED
    assert change.facts[-1].event is ApprovalEvent.REJECTED
    assert not satisfied(change.approval, "h1", START)


def test_any_change_of_the_plan_voids_what_was_given_and_makes_its_editor_an_author() -> None:
    granted = after(asked(), yes("bea"), yes("cem"))
    change = heart.next(granted, PlanChanged("h2", "cem"), START + MINUTE)
    assert change.approval.status is Status.OPEN
    assert [told.event for told in change.facts] == [ApprovalEvent.VOIDED]
    assert not satisfied(change.approval, "h1", START + MINUTE)
    assert not satisfied(change.approval, "h2", START + MINUTE)
    with pytest.raises(Denied):
        after(change.approval, yes("cem", plan="h2"), now=START + MINUTE)
    assert satisfied(
        after(change.approval, yes("bea", plan="h2"), yes("dan", plan="h2"), now=START + MINUTE), "h2", START
    )


def test_each_byte_of_the_plan_is_in_its_text_and_the_text_is_canonical() -> None:
    text = plan_text(PLAN)
    assert text.encode() == rfc8785.dumps({"type": "prunella.plan/v1", **PLAN.__dict__, "scope": ["p1", "p2"]})
    assert read_plan(text) == replace(PLAN, scope=("p1", "p2"))
    changed = [
        replace(PLAN, **{name: value + "x"})  # type: ignore[arg-type]
        for name, value in PLAN.__dict__.items()
        if isinstance(value, str)
    ] + [replace(PLAN, scope=("p1",)), replace(PLAN, policy_version=8)]
    assert len({plan_text(other) for other in changed} | {text}) == len(changed) + 1 == len(PLAN.__dict__) + 1
    assert plan_text(replace(PLAN, scope=("p1", "p2"))) == text


def test_people_are_reminded_then_others_told_then_it_expires_each_once() -> None:
    approval, told = asked(), []
    for minute in range(70):
        change = heart.next(approval, Tick(), START + minute * MINUTE)
        approval = change.approval
        told += [(minute, fact.event) for fact in change.facts]
    assert told == [(15, ApprovalEvent.REMINDED), (30, ApprovalEvent.ESCALATED), (60, ApprovalEvent.EXPIRED)]
    assert approval.due_time is None


def test_a_sweep_that_was_away_says_only_what_still_matters() -> None:
    assert [told.event for told in heart.next(asked(), Tick(), START + 40 * MINUTE).facts] == [ApprovalEvent.ESCALATED]
    assert [told.event for told in heart.next(asked(), Tick(), START + 90 * MINUTE).facts] == [ApprovalEvent.EXPIRED]


def test_what_was_approved_and_not_used_expires_too() -> None:
    granted = after(asked(), yes("bea"), yes("cem"), now=START + 50 * MINUTE)
    assert satisfied(granted, "h1", START + 109 * MINUTE)
    assert not satisfied(granted, "h1", START + 110 * MINUTE)
    assert granted.due_time == START + 110 * MINUTE
    assert after(granted, Tick(), now=START + 110 * MINUTE).status is Status.EXPIRED


def test_a_tick_at_its_due_time_always_says_something() -> None:
    approval = asked()
    while approval.due_time:
        change = heart.next(approval, Tick(), approval.due_time)
        assert change.facts
        approval = change.approval


@pytest.mark.parametrize(
    ("quorum", "field"),
    [
        (Quorum(size=0), "quorum.size"),
        (Quorum(size=21), "quorum.size"),
        (Quorum(3, ("approver",), ("bea", "cem")), "quorum.size"),
        (Quorum(1, ("approver", "admin")), "quorum.seats"),
        (Quorum(2, ()), "quorum.seats"),
        (Quorum(2, ("king",)), "quorum.seats"),
        (Quorum(2, ("approver",), ("bea", "Bea ")), "quorum.approvers"),
        (Quorum(2, ("approver",), ("bea", "")), "quorum.approvers"),
    ],
)
def test_a_need_that_nobody_could_meet_is_refused_with_its_field(quorum: Quorum, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(quorum)
    assert refused.value.field == field
    assert {"rule", "remedy"} <= refused.value.metadata.keys()


def test_a_plan_without_a_hash_and_times_without_sense_are_refused() -> None:
    for plan, times in (("", Times()), ("h1", Times(timeout=timedelta(0))), ("h1", Times(validity=timedelta(days=99)))):
        with pytest.raises(Invalid):
            heart.create("ap1", "a1", plan, Quorum(), authors=["ada"], proposer="d", times=times, now=START)


def test_one_person_cannot_sit_on_two_seats() -> None:
    quorum = Quorum(2, ("approver", "admin"))
    assert not is_met(quorum, [yes("bea", ADMIN)])
    assert not is_met(quorum, [yes("bea"), yes("cem")])
    assert is_met(quorum, [yes("bea", ADMIN), yes("cem")])
    assert is_met(quorum, [yes("cem"), yes("bea", ADMIN)])


def test_every_status_has_an_owner_and_an_end() -> None:
    assert set(OWNERS) == set(Status)


PEOPLE = ("ada", "bea", "cem", "dan", "decider", "Bea")
ROLE_SETS = st.sets(st.sampled_from(["operator", "approver", "admin"])).map(frozenset)


@given(
    st.lists(st.tuples(st.sampled_from(["bea", "cem", "dan", "eli"]), ROLE_SETS), max_size=5, unique_by=lambda v: v[0]),
    st.lists(st.sampled_from(["operator", "approver", "admin"]), min_size=1, max_size=3),
    st.integers(0, 2),
)
def test_enough_agrees_with_trying_every_seating(
    voters: list[tuple[str, frozenset[str]]], seats: list[str], more: int
) -> None:
    quorum = Quorum(len(seats) + more, tuple(seats))
    assert is_met(quorum, [yes(person, roles) for person, roles in voters]) == seated(quorum, voters)


def seated(quorum: Quorum, voters: list[tuple[str, frozenset[str]]]) -> bool:
    eligible = [(person, roles) for person, roles in voters if roles & set(quorum.seats)]
    if len(eligible) < quorum.size:
        return False
    return any(
        all(seat in roles for seat, (_, roles) in zip(quorum.seats, order, strict=False))
        for order in permutations(eligible, len(quorum.seats))
    )


class Votes(RuleBasedStateMachine):
    """Invariant 6, against a diary that knows nothing of the heart: who said yes to what since the last change."""

    @initialize(
        quorum=st.integers(1, 3),
        seats=st.sampled_from([("approver",), ("approver", "admin"), ("admin",), ("operator",)]),
        named=st.sampled_from([(), ("bea", "cem", "dan"), ("ada", "bea", "cem")]),
    )
    def begin(self, quorum: int, seats: tuple[str, ...], named: tuple[str, ...]) -> None:
        self.quorum = Quorum(max(quorum, len(seats)), seats, named)
        self.now, self.plan_hash, self.edits = START, "h0", 0
        made = heart.create(
            "x", "a", "h0", self.quorum, authors=["ada"], proposer="decider", times=Times(10 * MINUTE, 5 * MINUTE),
            now=START,
        )  # fmt: skip
        self.approval = made.approval
        self.authors, self.diary, self.over = {"ada"}, dict[str, frozenset[str]](), False
        self.sent: list[Vote] = []
        self.granted: datetime | None = None
        self.until = START + 10 * MINUTE

    @rule(operator=st.sampled_from(PEOPLE), roles=ROLE_SETS, yes=st.integers(0, 7), old=st.booleans())
    def vote(self, operator: str, roles: frozenset[str], yes: int, old: bool) -> None:
        self.cast(Vote(operator, roles, yes > 0, "h0" if old else self.plan_hash, f"r{len(self.sent)}"))

    @rule(which=st.integers(0, 30))
    def replay(self, which: int) -> None:
        if self.sent:
            self.cast(self.sent[which % len(self.sent)])

    def cast(self, vote: Vote) -> None:
        self.sent.append(vote)
        self.lapse()
        before = self.approval
        try:
            self.approval = heart.next(before, vote, self.now).approval
        except Problem:
            assert before == self.approval
            assert not self.counts(vote), "a vote that counts was refused"
            return
        person, fits = vote.operator.casefold(), vote.plan_hash == self.plan_hash
        known = any(
            old.request_id == vote.request_id and old.plan_hash == vote.plan_hash and old.approved == vote.approved
            for old in before.votes
        )
        if known or self.over:
            assert self.approval.status in {before.status, Status.EXPIRED}
            return
        assert fits
        assert person not in self.authors | {"decider"}
        assert not self.quorum.approvers or person in self.quorum.approvers
        if not vote.approved:
            self.over = True
            return
        assert person not in self.diary
        self.diary[person] = vote.roles
        if seated(self.quorum, list(self.diary.items())) and self.granted is None:
            self.granted, self.until = self.now, self.now + 5 * MINUTE

    def counts(self, vote: Vote) -> bool:
        """Whether the diary knows of nothing against a vote: somebody new, with a role, about this plan, in time."""
        person = vote.operator.casefold()
        able = bool(vote.roles & set(self.quorum.seats)) and (
            not self.quorum.approvers or person in self.quorum.approvers
        )
        new = not vote.approved or (person not in self.diary and self.granted is None)
        return (
            able
            and new
            and not self.over
            and vote.plan_hash == self.plan_hash
            and person not in self.authors | {"decider"}
        )

    @rule(editor=st.sampled_from(PEOPLE), same=st.booleans())
    def edit(self, editor: str, same: bool) -> None:
        self.edits += 1
        plan = self.plan_hash if same else f"h{self.edits}"
        self.lapse()
        self.approval = heart.next(self.approval, PlanChanged(plan, editor), self.now).approval
        if plan != self.plan_hash and not self.over:
            self.plan_hash, self.diary, self.granted = plan, {}, None
            self.authors.add(editor.casefold())
            self.until = self.now + 10 * MINUTE

    @rule(minutes=st.integers(0, 7))
    def wait(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule()
    def tick(self) -> None:
        self.lapse()
        self.approval = heart.next(self.approval, Tick(), self.now).approval

    def lapse(self) -> None:
        self.over = self.over or self.now >= self.until

    @invariant()
    def satisfied_means_what_the_diary_says(self) -> None:
        if not hasattr(self, "approval"):
            return
        good = not self.over and self.now < self.until and seated(self.quorum, list(self.diary.items()))
        assert satisfied(self.approval, self.plan_hash, self.now) == good
        if good:
            assert len(set(self.diary) - self.authors - {"decider"}) >= self.quorum.size
        for number in range(self.edits + 1):
            if f"h{number}" != self.plan_hash:
                assert not satisfied(self.approval, f"h{number}", self.now)


TestVotes = Votes.TestCase
TestVotes.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
