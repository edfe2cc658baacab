"""The verdict: early where the figures allow it, careful where they do not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.patcher.verdict import Evidence, Probe, Result, Rules, Sums, clearly_below, judge, lower_bound

BROKEN = Sums(beats=20, errors=60, attempts=100, failures=60, seconds=20)
HEALED = Sums(beats=5, errors=0, attempts=40, failures=0, seconds=5)
NOBODY = Sums()
SEEN = Evidence(BROKEN, HEALED, NOBODY, "webhook_fail_rate")
RULES = Rules()


def result(**changes: object) -> Result:
    return judge(replace(SEEN, **changes), RULES).result  # type: ignore[arg-type]


def test_a_remedy_after_which_nothing_fails_any_more_passes() -> None:
    verdict = judge(SEEN, RULES)
    assert (verdict.result, verdict.low_evidence) == (Result.PASS, False)
    assert (verdict.before, verdict.after) == (0.6, 0.0)
    assert "60%" in verdict.explanation


def test_four_beats_are_not_five() -> None:
    assert result(after=replace(HEALED, beats=4)) is Result.INSUFFICIENT


def test_few_webhooks_say_nothing_about_webhooks() -> None:
    assert result(after=replace(HEALED, attempts=9)) is Result.INSUFFICIENT


def test_a_remedy_after_which_just_as_much_fails_is_taken_back_before_five_beats_are_in() -> None:
    assert result(after=Sums(beats=2, errors=7, attempts=12, failures=7, seconds=2)) is Result.FAIL


def test_two_failures_of_ten_may_be_chance_and_nine_attempts_prove_nothing() -> None:
    assert result(after=Sums(5, 2, 10, 2, 5)) is Result.INSUFFICIENT
    assert result(after=Sums(2, 0, 9, 9, 2)) is Result.INSUFFICIENT


def test_a_rate_above_the_threshold_never_passes_however_much_better_than_before() -> None:
    assert result(after=Sums(6, 0, 100, 15, 6)) is not Result.PASS
    assert result(after=Sums(6, 0, 1000, 150, 6)) is Result.FAIL


def test_a_rate_within_the_threshold_must_still_be_clearly_below_before() -> None:
    assert result(before=Sums(20, 0, 10, 1, 20), after=Sums(6, 0, 12, 1, 6)) is Result.INSUFFICIENT


@pytest.mark.parametrize(("health", "beats", "expected"), [
    ("down", 2, Result.FAIL),
    ("down", 1, Result.INSUFFICIENT),
    ("unhealthy", 3, Result.FAIL),
    ("unhealthy", 2, Result.INSUFFICIENT),
    ("starting", 9, Result.INSUFFICIENT),
    ("", 9, Result.INSUFFICIENT),
])  # fmt: skip
def test_only_a_healthy_plugin_passes_and_a_dead_one_fails_at_once(health: str, beats: int, expected: Result) -> None:
    assert result(health=health, after=replace(HEALED, beats=beats)) is expected


def test_silence_beyond_its_limit_is_a_failure() -> None:
    assert result(after=Sums(), silent=121.0) is Result.FAIL
    assert result(after=Sums(), silent=119.0) is Result.INSUFFICIENT


def test_errors_that_come_faster_than_before_and_than_elsewhere_fail() -> None:
    calm = Sums(beats=60, errors=6, attempts=100, failures=0, seconds=60)
    bursting = Sums(beats=5, errors=20, attempts=40, failures=0, seconds=5)
    everywhere = Sums(beats=300, errors=1200, attempts=0, failures=0, seconds=300)
    assert result(before=calm, after=bursting, symptom="plugin_down") is Result.FAIL
    assert result(before=calm, after=bursting, control=everywhere, symptom="plugin_down") is Result.PASS


def test_failures_that_hit_everybody_at_once_are_not_blamed_on_the_switch_until_the_last_call() -> None:
    storm = {
        "before": Sums(20, 0, 100, 0, 20),
        "after": Sums(5, 0, 40, 20, 5),
        "control": Sums(100, 0, 800, 480, 100),
        "symptom": "plugin_down",
    }
    assert result(**storm) is Result.INSUFFICIENT
    assert result(**storm, probe=Probe.GOOD, last_call=True) is Result.FAIL


def test_a_restarted_plugin_passes_when_it_lives_even_without_traffic() -> None:
    assert result(before=NOBODY, after=Sums(beats=5, seconds=5), symptom="plugin_down") is Result.PASS


def test_an_error_spike_must_be_gone_not_only_smaller() -> None:
    spike = Sums(beats=20, errors=100, attempts=0, failures=0, seconds=20)
    assert result(before=spike, after=Sums(6, 20, 0, 0, 6), symptom="error_spike") is Result.INSUFFICIENT
    assert result(before=spike, after=Sums(6, 1, 0, 0, 6), symptom="error_spike") is Result.PASS


class TestTheLastCall:
    """What little is known decides together with the release's own probe."""

    few = replace(SEEN, after=Sums(beats=3, seconds=3), last_call=True)

    def test_a_good_probe_and_not_one_error_pass_with_low_evidence(self) -> None:
        verdict = judge(replace(self.few, probe=Probe.GOOD), RULES)
        assert (verdict.result, verdict.low_evidence) == (Result.PASS, True)

    @pytest.mark.parametrize("probe", [Probe.BAD, Probe.REQUESTED, Probe.NOT_REQUESTED])
    def test_without_a_good_probe_it_fails(self, probe: Probe) -> None:
        assert judge(replace(self.few, probe=probe), RULES).result is Result.FAIL

    @pytest.mark.parametrize("after", [Sums(), Sums(3, 1, 0, 0, 3), Sums(3, 0, 5, 1, 3)])
    def test_a_good_probe_helps_neither_the_silent_nor_the_failing(self, after: Sums) -> None:
        assert judge(replace(self.few, probe=Probe.GOOD, after=after), RULES).result is Result.FAIL

    def test_there_is_always_an_answer(self) -> None:
        assert judge(self.few, RULES).result is not Result.INSUFFICIENT


def test_the_lower_bound_of_a_share_is_wilsons() -> None:
    # (p + z²/2n - z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) for 5 of 10 and z = 2.326, by hand
    assert lower_bound(5, 10) == pytest.approx(0.2035, abs=5e-4)
    assert lower_bound(0, 10) == pytest.approx(0.0, abs=1e-12)
    assert lower_bound(0, 0) == 0.0


def test_clearly_below_asks_for_more_than_chance() -> None:
    assert clearly_below(Sums(attempts=40), Sums(attempts=100, failures=60))
    assert not clearly_below(Sums(attempts=10), Sums(attempts=10, failures=2))
    assert clearly_below(Sums(attempts=10), Sums(attempts=100, failures=0))


counts = st.integers(0, 500)


@st.composite
def sums(draw: st.DrawFn) -> Sums:
    attempts = draw(counts)
    failures = draw(st.integers(0, attempts))
    return Sums(draw(st.integers(0, 60)), draw(counts), attempts, failures, draw(st.floats(0, 600)))


@given(
    sums(), sums(), sums(), st.sampled_from(["webhook_fail_rate", "error_spike", "plugin_down"]),
    st.sampled_from(["healthy", "unhealthy", "down", ""]), st.sampled_from(Probe), st.booleans(),
)  # fmt: skip
def test_whatever_is_seen_a_pass_is_earned_and_the_last_call_is_answered(
    before: Sums, after: Sums, control: Sums, symptom: str, health: str, probe: Probe, last: bool
) -> None:
    verdict = judge(Evidence(before, after, control, symptom, health, 0.0, probe, last), RULES)
    assert verdict.explanation
    if last:
        assert verdict.result is not Result.INSUFFICIENT
    if verdict.result is Result.PASS:
        assert after.beats > 0
        assert health in {"healthy", ""}
        assert after.rate <= RULES.threshold
        assert verdict.low_evidence or after.beats >= RULES.beats
