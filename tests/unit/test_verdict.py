"""The verdict: early where the figures allow it, careful where they do not."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.patcher.evidence import FIGURES, Evidence, Level, Probe, Rules, Sums
from services.patcher.verdict import Result, judge

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


def test_two_failures_of_ten_may_be_chance_and_nine_of_nine_are_none() -> None:
    assert result(after=Sums(5, 2, 10, 2, 5)) is Result.INSUFFICIENT
    assert result(after=Sums(2, 0, 2, 2, 2)) is Result.INSUFFICIENT
    assert result(after=Sums(2, 0, 9, 9, 2)) is Result.FAIL


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


def test_no_traffic_is_no_proof_but_nothing_speaks_against_it() -> None:
    verdict = judge(replace(SEEN, before=NOBODY, after=Sums(beats=5, seconds=5), symptom="plugin_down"), RULES)
    assert (verdict.result, verdict.low_evidence) == (Result.PASS, True)
    assert "too few to prove anything" in verdict.explanation


def test_a_full_pass_needs_evidence_that_webhooks_work() -> None:
    restarted = replace(SEEN, before=NOBODY, symptom="plugin_down", after=HEALED)
    assert not judge(restarted, RULES).low_evidence
    few = replace(restarted, after=replace(HEALED, attempts=8))
    assert judge(few, RULES).result is Result.INSUFFICIENT, "traffic is to be expected, so it is waited for"
    assert judge(replace(few, probe=Probe.GOOD), RULES).low_evidence


def test_a_release_that_spoils_most_webhooks_is_found_by_the_first_of_them() -> None:
    spoilt = replace(SEEN, before=NOBODY, symptom="plugin_down", after=Sums(5, 0, 10, 6, 5))
    assert judge(spoilt, RULES).result is Result.FAIL


def signatures(before: int, after: int, attempts: int = 40) -> Result:
    return result(
        before=Sums(beats=20, attempts=100, seconds=20, signature_failures=before),
        after=Sums(beats=6, attempts=attempts, seconds=6, signature_failures=after),
        symptom="signature_invalid",
    )


def test_a_patch_that_does_not_mend_signatures_does_not_pass() -> None:
    assert signatures(50, 0) is Result.PASS
    assert signatures(50, 18) is Result.INSUFFICIENT
    assert signatures(50, 60) is Result.FAIL


def test_a_symptom_that_is_counted_is_gone_by_the_webhook_so_that_a_quiet_hour_is_no_cure() -> None:
    assert signatures(50, 0, attempts=2) is Result.INSUFFICIENT


def test_signatures_that_are_rejected_after_another_illness_fail_it() -> None:
    broke = Sums(beats=5, attempts=40, seconds=5, signature_failures=12)
    assert result(after=broke) is Result.FAIL
    everywhere = Sums(beats=50, attempts=400, seconds=50, signature_failures=120)
    assert result(after=broke, control=everywhere) is Result.PASS


def test_what_a_detector_opens_about_the_new_generation_fails_it() -> None:
    assert result(findings=("config_drift",)) is Result.FAIL
    assert result(findings=("telemetry_anomaly",)) is Result.FAIL
    assert result(findings=("something_new",)) is Result.FAIL
    assert result(findings=("config_drift",), symptom="config_drift") is Result.PASS


@pytest.mark.parametrize("type_", ["agent_degraded", "version_incompatibility"])
def test_what_befalls_a_host_speaks_against_no_remedy(type_: str) -> None:
    assert result(findings=(type_,)) is Result.PASS


@pytest.mark.parametrize("type_", ["webhook_fail_rate", "error_spike", "plugin_down", "heartbeat_missed"])
def test_what_has_a_test_of_its_own_is_not_judged_twice(type_: str) -> None:
    assert result(findings=(type_,), symptom="plugin_down") is Result.PASS


@pytest.mark.parametrize(("present", "expected"), [(199.0, Result.PASS), (201.0, Result.INSUFFICIENT)])
def test_a_level_far_above_what_is_usual_is_waited_out(present: float, expected: Result) -> None:
    assert result(levels=(Level("latency_ms", 100.0, present, 0.1),)) is expected


def test_a_level_that_varies_much_is_worse_only_far_from_what_is_usual() -> None:
    assert result(levels=(Level("latency_ms", 100.0, 400.0, 0.5),)) is Result.PASS
    assert result(levels=(Level("latency_ms", 100.0, 450.0, 0.5),)) is Result.INSUFFICIENT


def test_a_remedy_whose_configuration_is_not_reported_has_not_passed() -> None:
    assert result(drifts=True) is Result.INSUFFICIENT
    assert result(drifts=True, probe=Probe.GOOD, last_call=True) is Result.FAIL


def test_looking_often_calls_a_good_remedy_bad_no_more_often_than_promised() -> None:
    chance, failed = random.Random(7), 0  # noqa: S311
    before, runs = Sums(beats=60, attempts=600, failures=48, seconds=60), 400
    for _ in range(runs):
        attempts = failures = 0
        for look in range(1, 91):
            attempts += 10
            failures += sum(chance.random() < 0.08 for _ in range(10))
            after = Sums(look, 0, attempts, failures, float(look))
            if judge(Evidence(before, after, NOBODY, "plugin_down"), RULES).result is Result.FAIL:
                failed += 1
                break
    assert failed <= RULES.alpha * runs


counts = st.integers(0, 500)


@st.composite
def sums(draw: st.DrawFn) -> Sums:
    attempts = draw(counts)
    failures = draw(st.integers(0, attempts))
    return Sums(draw(st.integers(0, 60)), draw(counts), attempts, failures, draw(st.floats(0, 600)), draw(counts))


levels = st.builds(Level, st.just("latency_ms"), st.floats(1, 100), st.floats(1, 1000), st.floats(0, 1))


@given(
    sums(), sums(), sums(), st.sampled_from(sorted(FIGURES)),
    st.sampled_from(["healthy", "unhealthy", "down", ""]), st.sampled_from(Probe), st.booleans(),
    st.lists(st.sampled_from([*FIGURES, "new"]), max_size=2), st.lists(levels, max_size=1), st.booleans(),
)  # fmt: skip
def test_whatever_is_seen_a_pass_is_earned_and_the_last_call_is_answered(
    before: Sums, after: Sums, control: Sums, symptom: str, health: str, probe: Probe, last: bool,
    findings: list[str], told: list[Level], drifts: bool,
) -> None:  # fmt: skip
    seen = Evidence(before, after, control, symptom, health, 0.0, probe, last, tuple(findings), tuple(told), drifts)
    verdict = judge(seen, RULES)
    assert verdict.explanation
    if last:
        assert verdict.result is not Result.INSUFFICIENT
    if verdict.result is Result.PASS:
        assert after.beats > 0
        assert health in {"healthy", ""}
        assert after.rate <= RULES.threshold
        assert not drifts
        assert verdict.low_evidence or (after.beats >= RULES.beats and after.attempts)
