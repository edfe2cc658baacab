"""A rollout through its states: waves, halts, pauses, people, and plugins that are away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from libs.common.errors import Invalid
from libs.common.errors import Refused as Forbidden
from services.patcher import rollout as heart
from services.patcher.rollout import (
    AbortRequested,
    Bounds,
    BudgetChanged,
    CancelUnpermitted,
    ControlGroupUpdated,
    Counts,
    MemberState,
    NotSwitched,
    Outcome,
    PauseRequested,
    PluginLeft,
    PromoteRequested,
    Rejected,
    ResumeRequested,
    Returned,
    RollBack,
    RollbackFailed,
    RolledBack,
    RolloutEvent,
    Rules,
    Scope,
    Settled,
    Started,
    StartMembers,
    State,
    Superseded,
    Switched,
    Tick,
    WentOffline,
    figures,
)
from tests.unit.rollout_stories import START, Story, places

HEALTHY, REVERTED, BROKEN, SILENT = Outcome.HEALTHY, Outcome.REVERTED, Outcome.BROKEN, Outcome.SILENT
S = MemberState


def test_a_good_build_goes_wave_by_wave_to_everybody() -> None:
    story = Story(5, 15, 30)
    for _ in range(3):
        story.heals().soaks()
    assert story.state() is State.SUCCEEDED
    assert story.states() == {S.HEALTHY: 50}
    assert story.events.count(RolloutEvent.WAVE_STARTED) == story.events.count(RolloutEvent.WAVE_PASSED) == 3
    assert story.facts[-1].reason == "1.2.3 runs on 50 plugins; 0 broke"
    assert figures(story.rollout).success_rate == 1.0


def test_it_begins_with_one_plugin_and_doubles_with_each_clean_batch_up_to_the_budget() -> None:
    story, widths = Story(200, budget=16), list[int]()
    while story.flying():
        batch = len(story.flying())
        widths.append(batch)
        for row in story.flying():
            story.sees(Settled(row, HEALTHY))
    assert widths[:6] == [1, 2, 4, 8, 16, 16]
    assert story.highest == 16


def test_a_bad_build_is_halted_in_the_first_wave_which_is_taken_back() -> None:
    story = Story(5, 45).settles(HEALTHY, REVERTED, SILENT)
    assert story.state() is State.RUNNING, "two of three may still be chance"
    story.settles(BROKEN)
    assert story.state() is State.ROLLING_BACK
    halted = next(fact for fact in story.facts if fact.event is RolloutEvent.HALTED)
    assert halted.reason == (
        "wave 1 is halted: 3 of 4 plugins broke (75 %), no control group; at most 2 % was allowed, and chance alone "
        "does this in less than 1 of 1,808 rollouts; the wave is rolled back"
    )
    assert [want for want in story.effects if isinstance(want, RollBack)] == [RollBack(1, 1, halted.reason)]
    for row in [row for row in story.rows.values() if row.state is S.ROLLING_BACK]:
        story.sees(RolledBack(row))
    assert story.state() is State.HALTED
    assert story.states() == {S.ROLLED_BACK: 3, S.REVERTED: 1, S.WAITING: 46}
    assert story.facts[-1].reason == "3 plugins rolled back"


def test_a_wave_that_breaks_after_good_ones_is_halted_and_only_that_wave_is_taken_back() -> None:
    story = Story(5, 45, 50).heals().soaks()
    while story.state() is State.RUNNING:
        story.settles(REVERTED)
    assert story.state() is State.ROLLING_BACK or story.state() is State.HALTED
    assert story.states()[S.HEALTHY] == 5
    assert story.states()[S.REVERTED] <= 4


def test_plugins_that_break_while_the_wave_soaks_count_against_it() -> None:
    story = Story(5, 45).heals()
    for plugin in ("p1", "p2"):
        story.sees(Settled(story.rows[plugin], BROKEN, "an incident opened"))
    assert story.state() is State.ROLLING_BACK
    assert story.states()[S.ROLLING_BACK] == 5


def test_doubt_neither_promotes_nor_rolls_back_but_asks_a_person() -> None:
    story = Story(5, 45).settles(HEALTHY, HEALTHY, REVERTED, HEALTHY, SILENT).soaks()
    assert story.state() is State.PAUSED and story.rollout.doubted
    assert story.rollout.reason == (
        "wave 1 is in doubt: 2 of 5 plugins broke (40 %), no control group: more than 2 %, but not enough to blame "
        "the build"
    )
    assert not [want for want in story.effects if isinstance(want, RollBack)]
    story.sees(PromoteRequested("ann", "both are known to be odd"))
    assert (story.state(), story.rollout.wave) == (State.RUNNING, 2)


def test_doubt_that_nobody_attends_to_takes_the_wave_back() -> None:
    story = Story(5, 45).settles(HEALTHY, HEALTHY, REVERTED, HEALTHY, SILENT).soaks()
    story.sees(Tick(), after=story.rollout.bounds.pause_limit)
    assert story.state() is State.ROLLING_BACK
    assert story.states()[S.ROLLING_BACK] == 4


def test_a_pause_that_a_person_forgot_ends_and_leaves_healthy_plugins_alone() -> None:
    story = Story(5, 45).heals().sees(PauseRequested("ann", "lunch"))
    story.sees(Tick(), after=story.rollout.bounds.pause_limit)
    assert story.state() is State.ABORTED
    assert story.states()[S.HEALTHY] == 5


def test_what_hits_everybody_is_not_blamed_on_the_build_and_stops_for_a_person() -> None:
    story = Story(40).settles(HEALTHY, REVERTED).sees(ControlGroupUpdated(Counts(200, 60)))
    story.settles(REVERTED)
    assert story.state() is State.PAUSED
    assert story.rollout.reason.startswith("wave 1 meets trouble all around: 2 of 3 plugins broke (67 %), 60 of 200")
    assert RolloutEvent.HALTED not in story.events


def test_offline_plugins_are_shown_left_out_and_join_late() -> None:
    story = Story(5, 15, offline=4).heals().soaks()
    story.sees(Returned(story.rows["p21"])).heals().soaks()
    assert story.state() is State.SUCCEEDED
    assert story.facts[-1].reason == "1.2.3 runs on 21 plugins; 0 broke (3 offline)"
    story.sees(Returned(story.rows["p22"])).sees(Returned(story.rows["p23"]))
    assert len(story.flying()) == 1, "after the end they come one at a time"
    story.settles(HEALTHY, HEALTHY)
    assert story.states() == {S.HEALTHY: 23, S.OFFLINE: 1}
    story.sees(Superseded("rollouts/r2")).sees(Returned(story.rows["p24"]))
    assert not story.flying(), "a plugin that slept over two rollouts gets the newer build"


def test_a_wave_too_much_of_which_is_offline_waits_for_a_person() -> None:
    story = Story(5, 45)
    for plugin in ("p4", "p5"):
        story.sees(WentOffline(story.rows[plugin]))
    story.heals().soaks()
    assert story.state() is State.PAUSED
    assert story.rollout.reason == "wave 1 shows too little: 3 of 5 plugins needed (2 offline)"
    story.sees(Returned(story.rows["p4"])).sees(Returned(story.rows["p5"])).sees(
        ResumeRequested("ann", "they are back")
    )
    story.heals().soaks()
    assert story.rollout.wave == 2


def test_an_offline_plugin_never_keeps_a_rollout_from_ending() -> None:
    story = Story(5, 3)
    for plugin in ("p7", "p8"):
        story.sees(WentOffline(story.rows[plugin]))
    story.heals().soaks().heals().soaks()
    assert story.state() is State.SUCCEEDED
    assert story.facts[-1].reason.endswith("(2 offline)")


def test_a_plugin_that_returns_while_the_last_wave_soaks_opens_it_again() -> None:
    story = Story(5, offline=1).heals().sees(Returned(Story(5, offline=1).rows["p6"]))
    assert story.state() is State.RUNNING
    story.heals().soaks()
    assert story.states() == {S.HEALTHY: 6}


def test_a_pause_calls_off_what_has_no_permit_and_resume_begins_with_one_again() -> None:
    story = Story(40).settles(*[HEALTHY] * 3)
    story.sees(Switched(story.flying()[0]))
    story.sees(PauseRequested("ann", "a release of ours is going on"))
    assert [type(want) for want in story.effects if isinstance(want, CancelUnpermitted)] == [CancelUnpermitted]
    assert [row.state for row in story.flying()] == [S.SWITCHED], "what may have switched goes on to its end"
    story.settles(HEALTHY)
    assert story.state() is State.PAUSED and not story.flying()
    story.sees(ResumeRequested("ann", "done"))
    assert len(story.flying()) == 1
    by_people = {RolloutEvent.PAUSED, RolloutEvent.RESUMED}
    assert [fact.actor for fact in story.facts if fact.event in by_people] == ["ann", "ann"]


def test_guilt_halts_a_paused_rollout_as_well() -> None:
    story = Story(40).settles(*[HEALTHY] * 3)
    for row in story.flying():
        story.sees(Switched(row))
    story.sees(PauseRequested("ann", "strange"))
    while story.flying():
        story.sees(Settled(story.flying()[0], BROKEN))
    assert story.state() is State.ROLLING_BACK


@pytest.mark.parametrize(
    ("scope", "healthy", "rolled_back"), [(Scope.NOTHING, 9, 0), (Scope.WAVE, 5, 4), (Scope.ALL, 0, 9)], ids=list(Scope)
)
def test_abort_takes_back_what_it_was_asked_to(scope: Scope, healthy: int, rolled_back: int) -> None:
    story = Story(5, 45).heals().soaks().settles(*[HEALTHY] * 4)
    unpermitted = len(story.flying())
    story.sees(AbortRequested("ann", "a better one is coming", scope))
    for row in [row for row in story.rows.values() if row.state is S.ROLLING_BACK]:
        story.sees(RolledBack(row) if row.switch_number else NotSwitched(row, "cancelled"))
    assert story.state() is State.ABORTED
    assert story.states()[S.HEALTHY] == healthy
    assert story.states()[S.ROLLED_BACK] == (rolled_back + unpermitted if rolled_back else 0)
    assert not story.flying()


def test_promote_waits_for_what_is_in_flight() -> None:
    story = Story(5, 45).settles(HEALTHY)
    with pytest.raises(Forbidden, match="cannot be promoted: only a soaking or paused one"):
        story.sees(PromoteRequested("ann", "quick"))
    for row in story.flying():
        story.sees(Switched(row))
    story.sees(PauseRequested("ann", "hm"))
    with pytest.raises(Forbidden, match="wait for the 2 plugins in flight"):
        story.sees(PromoteRequested("ann", "quick"))
    story.settles(HEALTHY, HEALTHY).sees(PromoteRequested("ann", "quick"))
    assert story.rollout.wave == 2
    assert {row.wave for row in story.flying()} == {2}
    assert story.flying()[0].plugin == "p4", "who waited in the first wave is first in the second"


def test_promote_ends_soaking_at_once() -> None:
    story = Story(5, 45).heals().sees(PromoteRequested("ann", "seen enough"))
    assert (story.state(), story.rollout.wave) == (State.RUNNING, 2)


@pytest.mark.parametrize(
    "wish",
    [PauseRequested("ann", ""), ResumeRequested("ann", ""), PromoteRequested("ann", ""), AbortRequested("ann", "")],
    ids=lambda wish: type(wish).__name__,
)
def test_a_rollout_that_is_over_takes_no_wishes(wish: heart.Observation) -> None:
    story = Story(2).heals().soaks()
    before = story.rollout
    with pytest.raises(Forbidden) as refused:
        story.sees(wish)
    assert refused.value.reason == "ROLLOUT_STATE"
    assert story.rollout is before


def test_nobody_heard_for_an_hour_pauses_and_says_what_is_missing() -> None:
    story = Story(40).settles(*[HEALTHY] * 3).sees(Tick(), after=timedelta(hours=1))
    assert story.state() is State.PAUSED
    assert story.rollout.reason == "wave 1 stands still: no result for 1 h, 4 plugins in flight, 33 waiting"


def test_rolling_back_ends_with_those_not_heard_of_listed_and_hears_them_later() -> None:
    story = Story(5, 45).settles(HEALTHY, BROKEN, BROKEN, BROKEN)
    rows = [row for row in story.rows.values() if row.state is S.ROLLING_BACK]
    story.sees(RolledBack(rows[0])).sees(RollbackFailed(rows[1], "slot b is gone"))
    story.sees(Tick(), after=story.rollout.bounds.roll_back_limit)
    assert story.state() is State.HALTED
    assert story.facts[-1].reason == f"1 plugins rolled back, {len(rows) - 1} not confirmed"
    story.sees(RolledBack(rows[2])).sees(RolledBack(story.rows[rows[1].plugin]))
    assert story.states()[S.ROLLED_BACK] == 3


def test_a_silent_plugin_that_is_heard_later_is_shown_so_but_stays_counted() -> None:
    story = Story(40).settles(HEALTHY, SILENT)
    silent = next(row for row in story.rows.values() if row.state is S.SILENT)
    story.sees(Settled(silent, HEALTHY, "heard at last"))
    assert story.rows[silent.plugin].state is S.HEALTHY
    assert story.rollout.tallies[0].broken == (2,)


def test_a_word_that_comes_twice_changes_nothing() -> None:
    story = Story(40).settles(HEALTHY)
    row = story.flying()[0]
    story.sees(Switched(row)).sees(Settled(story.rows[row.plugin], REVERTED))
    before = story.rollout.tallies
    story.sees(Settled(story.rows[row.plugin], REVERTED)).sees(Switched(story.rows[row.plugin]))
    assert story.rollout.tallies == before


def test_a_plugin_that_never_starts_is_left_out_after_five_tries() -> None:
    story = Story(1, 5)
    for _ in range(5):
        story.sees(NotSwitched(story.rows["p1"], "its disk is full", retry=True))
    assert story.rows["p1"].state is S.SKIPPED
    story.soaks()
    assert story.rollout.reason == "wave 1 shows too little: 0 of 1 plugins needed (1 left out)"


def test_a_plugin_that_had_a_permit_and_switched_nothing_is_tried_again_and_counted_once() -> None:
    story = Story(1, 5)
    story.sees(Switched(story.rows["p1"])).sees(NotSwitched(story.rows["p1"], "NO_ANSWER", retry=True))
    member = story.rows["p1"]
    assert (member.state, member.counted_against, member.tries) == (S.STARTED, False, 2), (
        "nothing is held against the build"
    )
    story.sees(Switched(member)).sees(Settled(story.rows["p1"], HEALTHY))
    assert story.rollout.tallies[0].exposed == 1
    assert story.rows["p1"].state is S.HEALTHY


def test_a_retired_plugin_is_no_longer_planned_for() -> None:
    story = Story(5, 5)
    story.sees(PluginLeft(story.rows["p5"], "retired")).heals().soaks()
    assert story.rollout.wave == 2


def test_a_larger_budget_starts_more_at_once_and_zero_is_refused() -> None:
    story = Story(40, budget=1).settles(*[HEALTHY] * 5)
    assert len(story.flying()) == 1
    story.sees(BudgetChanged(4, "ann", "it goes well")).settles(*[HEALTHY] * 3)
    assert len(story.flying()) > 1
    with pytest.raises(Invalid, match=r"rollout\.budget must be 1 to 10,000 plugins"):
        story.sees(BudgetChanged(0, "ann", ""))


def test_a_rollout_that_is_not_let_begin_ends() -> None:
    story = Story(5, allowed=False).sees(Rejected("bob", "not on a Friday"))
    assert (story.state(), story.facts[-1].actor) == (State.ABORTED, "bob")
    continue_late = Story(5, allowed=False).sees(Tick(), after=timedelta(hours=24))
    assert continue_late.state() is State.ABORTED


def test_a_live_rollout_is_not_superseded() -> None:
    with pytest.raises(Forbidden, match="abort it first"):
        Story(5).sees(Superseded("rollouts/r2"))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: heart.create("r", "p", "1", [], START), "rollout.plugins"),
        (lambda: heart.create("r", "p", "1", places(1), START, budget=0), "rollout.budget"),
        (lambda: heart.create("r", "p", "1", places(1), START, rules=Rules(alpha=0.5)), "rollout.alpha"),
        (lambda: heart.create("r", "p", "1", places(1), START, rules=Rules(doubt=500)), "rollout.doubt"),
        (lambda: heart.create("r", "p", "1", places(1), START, bounds=Bounds(exposure=0)), "rollout.exposure"),
        (lambda: heart.create("r", "p", "1", places(1), START, bounds=Bounds(stall=timedelta(0))), "rollout.stall"),
    ],
    ids=["nobody", "budget", "alpha", "doubt", "exposure", "stall"],
)
def test_bad_input_names_its_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        make()
    assert refused.value.field == field


def test_each_result_gives_the_next_one_another_hour() -> None:
    story = Story(40).settles(HEALTHY)
    story.now += timedelta(minutes=50)
    story.settles(HEALTHY).sees(Tick(), after=timedelta(minutes=50))
    assert story.state() is State.RUNNING
    story.sees(Tick(), after=timedelta(minutes=10))
    assert story.state() is State.PAUSED


def test_a_plugin_beyond_the_pace_is_not_started() -> None:
    story = Story(40)
    assert len(story.flying()) == 1
    story.sees(Started(story.rows["p2"]))
    assert story.rows["p2"].state is S.WAITING


def test_a_halted_rollout_brings_its_build_to_nobody_who_returns() -> None:
    story = Story(5, 45, offline=1).settles(HEALTHY, BROKEN, BROKEN, BROKEN)
    story.sees(Tick(), after=story.rollout.bounds.roll_back_limit)
    assert story.state() is State.HALTED and story.rollout.closed
    wanted = len(story.effects)
    story.sees(Returned(story.rows["p51"])).sees(Tick())
    assert len(story.effects) == wanted


def test_plugins_that_return_late_and_break_close_the_rollout() -> None:
    story = Story(3, offline=5).heals().soaks()
    for plugin in ("p4", "p5", "p6", "p7"):
        story.sees(Returned(story.rows[plugin]))
        if story.rows[plugin].state is S.STARTED:
            story.settles(BROKEN)
    assert story.state() is State.SUCCEEDED and story.rollout.closed
    assert story.facts[-1].event is RolloutEvent.CLOSED
    assert not any(isinstance(want, StartMembers) for want in heart.next(story.rollout, Tick(), story.now).effects)
    assert S.WAITING in story.states()


def test_an_aborted_rollout_is_closed_and_lets_what_is_permitted_end() -> None:
    story = Story(40).settles(*[HEALTHY] * 3)
    story.sees(Switched(story.flying()[0])).sees(AbortRequested("ann", "enough", Scope.NOTHING))
    assert story.state() is State.ABORTED and story.rollout.closed
    story.settles(HEALTHY)
    assert story.states() == {S.HEALTHY: 4, S.WAITING: 36}
