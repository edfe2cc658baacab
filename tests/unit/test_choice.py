"""The choice: down the ladder, never what was tried, and honest about its odds."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.beta_posterior import Outcomes
from services.decider import playbook
from services.decider.choice import choose
from services.decider.decision import ACTIONS, OWNERS, Choice, DecisionInputs, Opinion, Origin, Remedy, State, Tried
from services.decider.playbook import Playbook

DEFAULT = playbook.parse(Path(playbook.__file__).with_name("playbook.toml").read_text(), "playbook.toml")
EMPTY = playbook.parse("", "empty.toml")
TWO = """
[[remedy]]
package = "shop"
symptom = "error_spike"
from = "1.0"
action = "patch"
release = "1.1"
prior = { successes = 16 }
why = "first"
[[remedy]]
package = "shop"
symptom = "error_spike"
from = "1.0"
action = "patch"
release = "1.2"
prior = { successes = 16 }
why = "second"
"""
IN_ORDER = playbook.parse(TWO, "two.toml")
ALTERNATIVES = playbook.parse(TWO.replace('why = "', 'order = 1\nwhy = "'), "two.toml")


def inputs(**changes: object) -> DecisionInputs:
    fields: dict[str, object] = {
        "symptom": "error_spike",
        "severity": "medium",
        "package": "shop",
        "release": "1.0",
        "figures": {"errors_last_24h": 30.0},
    }
    return DecisionInputs(**(fields | changes))  # type: ignore[arg-type]


def chosen(
    book: Playbook,
    seen: DecisionInputs,
    learned: dict[Remedy, Outcomes] | None = None,
    opinion: Opinion | None = None,
    seed: str = "seed",
) -> Choice:
    return choose(seen, book, learned or {}, opinion=opinion, rng=random.Random(seed))  # noqa: S311 - a test repeats itself


def excluded(choice: Choice, remedy: Remedy) -> str:
    return next(candidate.excluded for candidate in choice.candidates if candidate.remedy == remedy)


def test_the_worked_example_is_patched_to_123_with_confidence_087() -> None:
    seen = inputs(symptom="webhook_fail_rate", package="checkout", release="1.2.0", figures={"webhook_fail_rate": 0.6})
    choice = chosen(DEFAULT, seen)
    assert choice.chosen.remedy == Remedy("patch", "1.2.3")
    assert (choice.chosen.confidence, choice.chosen.origin, choice.chosen.propensity) == (0.87, Origin.PLAYBOOK, 1.0)
    assert choice.confident
    assert choice.explanation.startswith("patch to 1.2.3, confidence 0.87, because the playbook says: ")


def test_a_dead_plugin_is_restarted_then_rolled_back_then_a_person_is_asked() -> None:
    tried: list[Tried] = []
    actions = []
    for number in range(1, 4):
        seen = inputs(symptom="plugin_down", severity="high", round=number, tried=tuple(tried), figures={})
        choice = chosen(DEFAULT, seen)
        actions.append((choice.chosen.remedy.action, choice.chosen.confidence >= 0.75))
        # patcher knows which release a rollback went to; we left it open.
        tried.append(Tried(choice.chosen.remedy.action, "0.9" if number == 2 else "", "rolled_back"))
    assert actions == [("restart", True), ("rollback", True), ("notify_ops", False)]


@given(st.sampled_from(sorted(ACTIONS)), st.floats(0, 1))
def test_silence_goes_to_a_person_whatever_anyone_says(action: str, confidence: float) -> None:
    seen = inputs(symptom="heartbeat_missed", severity="critical", figures={"webhook_fail_rate": 0.9})
    learned = {Remedy("restart"): Outcomes(500, 0)}
    for book in (DEFAULT, EMPTY):
        choice = chosen(book, seen, learned, Opinion(action, "2.0" if action == "patch" else "", confidence))
        assert choice.chosen.remedy.action in {"notify_ops", "no_action"}


def test_the_order_of_the_playbook_decides_between_sure_remedies() -> None:
    assert [chosen(IN_ORDER, inputs(), seed=str(n)).chosen.remedy.release for n in range(20)] == ["1.1"] * 20


def test_what_was_tried_is_left_out_with_its_outcome() -> None:
    choice = chosen(IN_ORDER, inputs(tried=(Tried("patch", "1.1", "staging_failed"),)))
    assert choice.chosen.remedy.release == "1.2"
    assert excluded(choice, Remedy("patch", "1.1")) == "tried in this incident: staging_failed"
    assert any("left out: tried in this incident: staging_failed" in line for line in choice.reasoning)


def test_the_release_that_runs_already_is_no_remedy() -> None:
    book = playbook.parse(TWO.replace('from = "1.0"', 'from = "*"'), "two.toml")
    choice = chosen(book, inputs(release="1.1"))
    assert choice.chosen.remedy.release == "1.2"
    assert excluded(choice, Remedy("patch", "1.1")) == "this release runs already"


def test_failures_push_a_remedy_below_the_next_one() -> None:
    learned = {Remedy("patch", "1.1"): Outcomes(failures=3)}
    choice = chosen(IN_ORDER, inputs(), learned)
    assert choice.chosen.remedy.release == "1.2"
    assert choice.candidates[0].confidence < 0.75


def test_what_was_learned_decides_where_the_playbook_is_silent() -> None:
    learned = {Remedy("patch", "2.0"): Outcomes(successes=9), Remedy("restart"): Outcomes(successes=1, failures=4)}
    choice = chosen(EMPTY, inputs(), learned)
    assert (choice.chosen.remedy, choice.chosen.origin) == (Remedy("patch", "2.0"), Origin.LEARNED)
    assert choice.confident


def test_a_lucky_success_is_a_proposal_not_a_certainty() -> None:
    choice = chosen(EMPTY, inputs(), {Remedy("patch", "2.0"): Outcomes(successes=1)})
    assert (choice.chosen.remedy.release, choice.chosen.confidence, choice.confident) == ("2.0", 0.31, False)
    assert "a person should look" in choice.explanation


def test_safe_alternatives_are_drawn_with_the_odds_that_are_stored() -> None:
    learned = {Remedy("patch", "1.2"): Outcomes(successes=6, failures=1)}
    drawn = [chosen(ALTERNATIVES, inputs(), learned, seed=str(n)) for n in range(400)]
    counts = Counter(choice.chosen.remedy.release for choice in drawn)
    stored = drawn[0].candidates[0].propensity
    assert 0.5 < stored < 0.9, "the better one more often, never always"
    assert counts["1.1"] / len(drawn) == pytest.approx(stored, abs=0.09)
    for choice in drawn:
        assert choice.chosen.propensity > 0
        assert sum(candidate.propensity for candidate in choice.candidates) == pytest.approx(1)


def test_an_unsafe_alternative_is_never_drawn() -> None:
    learned = {Remedy("patch", "1.2"): Outcomes(failures=4)}
    drawn = {chosen(ALTERNATIVES, inputs(), learned, seed=str(n)).chosen.remedy.release for n in range(200)}
    assert drawn == {"1.1"}


def test_the_same_seed_chooses_the_same() -> None:
    assert chosen(ALTERNATIVES, inputs(), seed="a") == chosen(ALTERNATIVES, inputs(), seed="a")


def test_sira_decides_where_nobody_else_is_sure_and_is_capped() -> None:
    choice = chosen(EMPTY, inputs(), opinion=Opinion("patch", "2.0", 0.999, "seen before"))
    assert (choice.chosen.remedy, choice.chosen.origin) == (Remedy("patch", "2.0"), Origin.SIRA)
    assert choice.chosen.confidence == 0.9
    assert choice.confident


def test_our_own_failures_weigh_more_than_siras_word() -> None:
    learned = {Remedy("patch", "2.0"): Outcomes(failures=4)}
    choice = chosen(EMPTY, inputs(), learned, Opinion("patch", "2.0", 0.95))
    assert not choice.confident


@pytest.mark.parametrize(
    ("opinion", "why"),
    [
        (Opinion("format_disk", "", 1.0), "the action is not known"),
        (Opinion("patch", "", 1.0), "patch needs a release"),
        (Opinion("patch", "1.0", 1.0), "this release runs already"),
        (Opinion("patch", "../../etc", 1.0), "the release is no version"),
        (Opinion("restart", "2.0", 1.0), "restart takes no release"),
        (Opinion("patch", "1.1", 1.0), "tried in this incident: rolled_back"),
    ],
)
def test_an_answer_of_sira_that_makes_no_sense_is_never_chosen(opinion: Opinion, why: str) -> None:
    choice = chosen(EMPTY, inputs(tried=(Tried("patch", "1.1", "rolled_back"),)), opinion=opinion)
    assert excluded(choice, Remedy(opinion.action, opinion.release)) == why
    assert (choice.chosen.origin, choice.confident) == (Origin.FALLBACK, False)


@pytest.mark.parametrize(
    ("figures", "action", "confidence"),
    [
        ({"webhook_fail_rate": 0.6}, "config_fix", 0.6),
        ({"webhook_fail_rate": 0.5}, "notify_ops", 0.3),
        ({"errors_last_24h": 51.0}, "notify_ops", 0.5),
        ({"errors_last_24h": 50.0}, "notify_ops", 0.3),
        ({"webhook_fail_rate": 0.9, "errors_last_24h": 900.0}, "config_fix", 0.6),
        ({}, "notify_ops", 0.3),
    ],
)
def test_the_fallback_says_what_the_original_said(figures: dict[str, float], action: str, confidence: float) -> None:
    choice = chosen(EMPTY, inputs(figures=figures))
    assert (choice.chosen.remedy.action, choice.chosen.confidence) == (action, confidence)
    assert not choice.confident


def test_fallback_is_silent_when_sira_spoke() -> None:
    seen = inputs(figures={"webhook_fail_rate": 0.9})
    choice = chosen(EMPTY, seen, opinion=Opinion("notify_ops", "", 0.2, "odd"))
    assert (choice.chosen.origin, choice.chosen.remedy.action) == (Origin.SIRA, "notify_ops")


@given(
    st.lists(
        st.builds(Tried, st.sampled_from(sorted(ACTIONS)), st.sampled_from(["", "1.1", "1.2", "2.0"])), max_size=8
    ),
    st.dictionaries(
        st.builds(Remedy, st.sampled_from(sorted(ACTIONS)), st.sampled_from(["", "1.0", "1.1", "2.0"])),
        st.builds(Outcomes, st.integers(0, 30), st.integers(0, 30)),
        max_size=5,
    ),
    st.none() | st.builds(Opinion, st.text(max_size=9), st.text(max_size=5), st.floats(0, 1), st.text(max_size=9)),
)
def test_whatever_comes_in_one_eligible_remedy_comes_out(
    tried: list[Tried], learned: dict[Remedy, Outcomes], opinion: Opinion | None
) -> None:
    seen = inputs(tried=tuple(tried))
    choice = chosen(ALTERNATIVES, seen, learned, opinion)
    assert not choice.chosen.excluded
    assert choice.chosen.remedy.release != seen.release or choice.chosen.remedy.action == "config_fix"
    if choice.chosen.remedy.action not in {"notify_ops", "no_action"}:
        assert not any(entry.covers(choice.chosen.remedy) for entry in tried)
    assert sum(candidate.propensity for candidate in choice.candidates) == pytest.approx(1)
    assert all(0 <= candidate.confidence <= 1 for candidate in choice.candidates)
    assert choice.confident == (
        choice.chosen.confidence >= ALTERNATIVES.confident and choice.chosen.origin is not Origin.FALLBACK
    )


def test_no_state_is_without_an_owner_and_every_way_ends() -> None:
    assert set(OWNERS) == set(State)
    for owner in OWNERS.values():
        assert owner.owner
        assert bool(owner.next) == bool(owner.deadline)
        assert all(not OWNERS[after].next for after in owner.next)
